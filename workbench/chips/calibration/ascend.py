"""Ascend: two constants from the four products whose times are published, and how near they come.

The rows of kernels_ascend.csv are msprof timings of library kernels on a 910B (24 cubes). The vector row
(LayerNorm) is predicted, not fitted: fused kernels of the inference recipes do better than it.
"""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.chips.calibration.fit import PRIOR, with_values
from workbench.chips.calibration.table import ASCEND_FILE
from workbench.chips.catalog import load_chip
from workbench.chips.kernel_rows import FORMATS, Row, norm, product
from workbench.chips.kernels.constants import NAMES, Calibration, Constant
from workbench.chips.kernels.simulate import kernel_times
from workbench.chips.operations import Operation
from workbench.units import MICROSECOND_S

Array = npt.NDArray[np.float64]
# id of the constant -> first guess, least, greatest
FITTED = {
    "DAV_2201/gemm.16/launch": (5e-6, 1e-6, 2e-5),
    "DAV_2201/gemm.16/efficiency": (0.75, 0.3, 0.98),
}


def fit_ascend(calibration: Calibration) -> tuple[list[Constant], dict[str, Any]]:
    """The fitted constants, and measured and predicted times by row.

    Intervals are the extremes that leaving one row out gives.
    """
    from scipy.optimize import least_squares

    with ASCEND_FILE.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    chip = load_chip(rows[0]["chip"])
    operations = [operation_of(row).replace(group=row["id"]) for row in rows]
    measured = np.array([float(row["latency_us"]) * MICROSECOND_S for row in rows])
    is_product = np.array([row["op"] == "gemm" for row in rows])
    first, low, high = np.log(np.array(list(FITTED.values()))).T

    def predicted(x: Array) -> Array:
        trial = with_values(calibration, dict(zip(FITTED, np.exp(x), strict=True)))
        return np.asarray(kernel_times(operations, chip, calibration=trial).expected_s)

    def fit(use: npt.NDArray[np.bool_]) -> Array:
        def loss(x: Array) -> Array:
            return np.append(np.log(predicted(x) / measured)[use], PRIOR * (x - first))

        return np.asarray(least_squares(loss, first, bounds=(low, high), diff_step=1e-3).x)

    best = fit(is_product)
    others = [fit(is_product & (np.arange(len(rows)) != i)) for i in np.flatnonzero(is_product)]
    least, greatest = np.min([*others, best], axis=0), np.max([*others, best], axis=0)
    constants = [
        Constant(
            name, float(value), float(lower), float(upper), NAMES[name.rpartition("/")[2]], "fitted",
            "kernels_ascend.csv, four products", int(is_product.sum()),
        )
        for name, value, lower, upper in zip(FITTED, *np.exp([best, least, greatest]), strict=True)
    ]  # fmt: skip
    microseconds = predicted(best) / MICROSECOND_S
    report = {
        row["id"]: {"measured_us": float(row["latency_us"]), "predicted_us": round(float(p), 1)}
        for row, p in zip(rows, microseconds, strict=True)
    }
    return constants, report


def operation_of(row: Row) -> Operation:
    """A row of kernels_ascend.csv."""
    m, n = float(row["m"]), float(row["n"])
    if row["op"] == "gemm":
        return product("gemm", 1.0, m, n, float(row["k"]), *FORMATS[row["dtype"]])
    return norm(m, n)
