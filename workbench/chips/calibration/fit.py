"""Least squares on logarithms, intervals by bootstrap, and what untested generations inherit.

Axes: r rows, p parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.chips.calibration.stages import STAGES, Stage
from workbench.chips.calibration.table import Table, assumed
from workbench.chips.kernels.constants import NAMES, Calibration, Constant

Array = npt.NDArray[np.float64]
SOURCE = "kernels_nvidia.csv (aiconfigurator 0.12.0)"
OUTLIER = 0.1  # residuals beyond this weigh less and less
PRIOR = 0.05  # pull of a first guess against a residual: decides only what the rows leave open
DRAWS = 50
LINEAR = ("overlap", "warm")  # fitted as they are; the others by their logarithm


@dataclass(frozen=True)
class Fit:
    """A stage's constants and, for their intervals, residuals and slopes where they ended.

    Shapes: x (p,), residual (r,), slopes (r, p), limits (2, p).
    """

    ids: tuple[str, ...]
    x: Array
    residual: Array
    slopes: Array
    limits: Array


def fit_all(table: Table, seed: int = 0) -> Calibration:
    """All stages in order, each starting from the constants of those before; then what families inherit.

    Every generation in the table gets constants of its own where its rows show them; a generation
    without rows has those of its family.
    """
    rng = np.random.default_rng(seed)
    calibration = assumed()
    for stage in STAGES:
        part = table.where(np.isin(table.op, stage.kernels))
        if len(part):
            fit = fit_stage(stage, part, calibration)
            constants = [*constants_of(fit, part, rng), *_scatter(fit, part, stage)]
            calibration = with_constants(calibration, constants)
    return with_constants(calibration, _inherited(calibration))


def fit_stage(stage: Stage, table: Table, start: Calibration) -> Fit:
    """Fit the constants of one stage to rows of its kernels."""
    from scipy.optimize import least_squares

    guesses = {f"{g}/{name}": v for g in sorted(set(table.generation)) for name, v in stage.own.items()}
    guesses |= {f"sm/{name}": v for name, v in stage.shared.items()}
    ids = tuple(guesses)
    first, low, high = (np.array([_to_x(i, guesses[i][j]) for i in ids]) for j in range(3))
    log_measured = np.log(table.measured)

    def residual(x: Array) -> Array:
        trial = with_values(start, {i: _from_x(i, v) for i, v in zip(ids, x, strict=True)})
        return np.asarray(np.log(table.predict(trial)[1]) - log_measured)

    found = least_squares(
        lambda x: np.concatenate([residual(x), PRIOR * (x - first)]),
        first, bounds=(low, high), loss="soft_l1", f_scale=OUTLIER, max_nfev=30, diff_step=1e-3,
    )  # fmt: skip
    return Fit(ids, found.x, residual(found.x), found.jac[: len(table)], np.stack([low, high]))


def constants_of(fit: Fit, table: Table, rng: np.random.Generator) -> list[Constant]:
    """Fitted constants with intervals; one that no row depends on is left out and falls back."""
    ends = _bootstrap(fit, table.shape, rng)
    rows = []
    for j, name in enumerate(fit.ids):
        used = int((np.abs(fit.slopes[:, j]) > 1e-6).sum())
        if used:
            x = float(fit.x[j])
            value, low, high = (
                _from_x(name, v) for v in (x, min(x, float(ends[0, j])), max(x, float(ends[1, j])))
            )
            rows.append(Constant(name, value, low, high, _unit(name), "fitted", SOURCE, used))
    return rows


def _bootstrap(fit: Fit, shapes: npt.NDArray[np.str_], rng: np.random.Generator) -> Array:
    """5th and 95th percentile of each parameter when shapes are drawn anew. Shapes: -> (2, p).

    One Gauss-Newton step from the optimum a draw, not a fit: constants move little.
    """
    groups = np.unique(shapes, return_inverse=True)[1]
    count = int(groups.max()) + 1
    # Soft L1 weighs a residual by the slope of its loss.
    robust = 1 / np.sqrt(1 + (fit.residual / OUTLIER) ** 2)
    gradient = (fit.slopes * robust[:, None]).T @ fit.residual
    draws = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        weighted = (fit.slopes * (robust * times[groups])[:, None]).T
        normal = weighted @ fit.slopes + PRIOR**2 * np.eye(len(fit.x))
        step = np.linalg.solve(normal, weighted @ fit.residual - gradient)
        draws.append(np.clip(fit.x - step, *fit.limits))
    return np.asarray(np.percentile(draws, [5, 95], axis=0))


def _scatter(fit: Fit, table: Table, stage: Stage) -> list[Constant]:
    """What is left unexplained, for each generation and kernel of a stage."""
    source = f"90th percentile of |log(predicted / measured)| over {SOURCE}"
    rows = []
    for generation in sorted(set(table.generation)):
        mine = np.abs(fit.residual[table.generation == generation])
        value = float(np.percentile(mine, 90))
        rows += [
            Constant(f"{generation}/{kernel}/scatter", value, value, value, "1", "fitted", source, len(mine))
            for kernel in stage.scatter
        ]
    return rows


def _inherited(calibration: Calibration) -> list[Constant]:
    """What a generation without rows has: the geometric mean of the fitted ones, between the extremes."""
    generations = set(calibration.generations.values())
    by_name: dict[str, list[Constant]] = {}
    for c in calibration.values():
        scope, _, rest = c.id.partition("/")
        if c.kind == "fitted" and scope in generations:
            by_name.setdefault(rest, []).append(c)
    rows = []
    for name, found in by_name.items():
        lower, upper = min(c.lower for c in found), max(c.upper for c in found)
        mean = float(np.exp(np.mean([np.log(max(c.value, 1e-12)) for c in found])))
        source = f"geometric mean of {len(found)} fitted generations"
        value = min(max(mean, lower), upper)
        rows.append(
            Constant(
                f"sm/{name}",
                value,
                lower,
                upper,
                found[0].unit,
                "derived",
                source,
                sum(c.rows for c in found),
            )
        )
    return rows


def with_values(calibration: Calibration, values: Mapping[str, float]) -> Calibration:
    """A calibration with some constants set, without intervals: a trial."""
    return with_constants(
        calibration, [Constant(name, v, v, v, _unit(name), "fitted", "trial") for name, v in values.items()]
    )


def with_constants(calibration: Calibration, constants: Iterable[Constant]) -> Calibration:
    """A calibration with some constants added or replaced."""
    merged = {**calibration, **{c.id: c for c in constants}}
    return Calibration(merged, calibration.generations, calibration.report)


def _unit(name: str) -> str:
    return NAMES[name.rpartition("/")[2]]


def _to_x(name: str, value: float) -> float:
    return value if name.endswith(LINEAR) else float(np.log(value))


def _from_x(name: str, x: float) -> float:
    return float(x) if name.endswith(LINEAR) else float(np.exp(x))
