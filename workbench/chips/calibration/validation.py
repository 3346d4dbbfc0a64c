"""How well fitted constants predict rows they were not fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.chips.calibration.fit import fit_all
from workbench.chips.calibration.table import Table
from workbench.chips.kernels.constants import Calibration

FOLDS = 5


def validate(table: Table, calibration: Calibration) -> dict[str, Any]:
    """Absolute relative errors, by kernel and by GPU: fitted, with the GPU left out, with shapes left out.

    "within_bounds" is the share of rows between the lower and the upper bound.
    """
    by_gpu = _left_out(table, np.unique(table.gpu, return_inverse=True)[1])
    shape = np.unique(table.shape, return_inverse=True)[1]
    fold = np.random.default_rng(1).permutation(int(shape.max()) + 1)[shape] % FOLDS
    by_shape = _left_out(table, fold)
    lower, fitted, upper = table.predict(calibration)
    is_within = (lower <= table.measured) & (table.measured <= upper)
    groups = {"all": np.full(len(table), True)}
    groups |= {op: table.op == op for op in sorted(set(table.op))}
    groups |= {gpu: table.gpu == gpu for gpu in sorted(set(table.gpu))}
    report = {}
    for name, mask in groups.items():
        row: dict[str, float] = {
            "rows": int(mask.sum()),
            "within_bounds": round(float(is_within[mask].mean()), 3),
        }
        for how, predicted in (("fitted", fitted), ("gpu_left_out", by_gpu), ("shapes_left_out", by_shape)):
            errors = np.abs(predicted[mask] / table.measured[mask] - 1)
            row[f"{how}_median"] = round(float(np.median(errors)), 3)
            row[f"{how}_p90"] = round(float(np.percentile(errors, 90)), 3)
        report[name] = row
    return report


def _left_out(table: Table, part: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Each row predicted by a fit to the other parts. Shapes: part (r,) -> (r,)."""
    predicted = np.full(len(table), np.nan)
    for which in np.unique(part):
        mine = part == which
        predicted[mine] = table.where(mine).predict(fit_all(table.where(~mine)))[1]
    return predicted
