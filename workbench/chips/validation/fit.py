"""Fitting the engines' constants to the measurements, and judging the fit on systems it has not seen.

Each engine has four constants: launch_share, slowdown, layer_s and, where prefills count, dispatch_s. They
minimise the sum over rows of a loss of log(predicted / measured) that outliers do not rule, plus what it
costs to leave the starting values: with few rows an engine stays near them. A row never has a constant of
its own. Leaving one system out and fitting the rest gives the honest error of a new system.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workbench.chips.engines import Engine
from workbench.chips.topology import Constant
from workbench.chips.validation.rows import Result
from workbench.files import write_whole

# Constant -> (starting value, spread of its logarithm around that). The start is the same for all engines.
PRIOR = {
    "launch_share": (0.6, 0.4),
    "slowdown": (1.1, 0.15),
    "layer_s": (10e-6, 0.8),
    "draft_s": (400e-6, 0.8),
    "dispatch_s": (60e-6, 0.6),
    "older_dispatch_s": (60e-6, 0.6),
    "arm_dispatch_s": (90e-6, 0.6),
}
# What makes an engine slow to start operations does so beside every host: hosts differ by so much from that.
# Two systems with hosts of one kind differ by 0.3, so a host's own rows say little of the next system's; of
# 0.25, 0.15, 0.10, 0.06 and 0.03 those around here predict systems best that were left out.
HOST_SPREAD = 0.08
# Errors beyond this count in proportion, not squared.
TURN = 0.25
# Scatter of a row around a right model, of its logarithm: what the prior is weighed against.
ROW_SCATTER = 0.15


@dataclass(frozen=True)
class Fit:
    """The constants of one engine, their standard errors (of the logarithm), and the rows they rest on."""

    engine: str
    values: dict[str, float]
    errors: dict[str, float]
    rows: int


def fit_engine(start: Engine, names: tuple[str, ...], predict: Callable[[Engine], Iterable[Result]]) -> Fit:
    """The constants `names` of an engine that fit the results best.

    predict gives the results for an engine; those without a prediction are left out.
    """
    from scipy.optimize import least_squares

    middle = np.log([PRIOR[name][0] for name in names])
    spread = np.array([PRIOR[name][1] for name in names])
    is_host = np.array([name.endswith("dispatch_s") for name in names])

    def misfit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        engine = start.replace(**{name: float(v) for name, v in zip(names, np.exp(x), strict=True)})
        logs = [
            math.log(r.predicted / r.measured) if r.predicted and r.measured else 0.0 for r in predict(engine)
        ]
        return np.concatenate([_soft(np.array(logs)) / ROW_SCATTER, _prior(x - middle, spread, is_host)])

    upper = np.where([name == "launch_share" for name in names], 0.0, middle + 4 * spread)
    lower = middle - 4 * spread
    # Where chips are slower than their host, the host's speed does not show: start on both sides of that.
    slow_host = middle + is_host
    starts = [middle] if (slow_host == middle).all() else [middle, slow_host]
    found = min(
        (
            least_squares(misfit, np.clip(x, lower, upper - 1e-6), bounds=(lower, upper), diff_step=0.02)
            for x in starts
        ),
        key=lambda result: result.cost,
    )
    count = found.fun.size - _prior(middle, spread, is_host).size
    inverse = np.linalg.pinv(found.jac.T @ found.jac)
    scale = max(float(2 * found.cost) / max(count, 1), 1.0)
    errors = np.sqrt(np.diag(inverse) * scale)
    return Fit(
        start.name,
        {name: float(v) for name, v in zip(names, np.exp(found.x), strict=True)},
        {name: float(v) for name, v in zip(names, errors, strict=True)},
        count,
    )


def _prior(
    moved: npt.NDArray[np.float64], spread: npt.NDArray[np.float64], is_host: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """What it costs to leave the starting values; those of several hosts move together or not at all."""
    if is_host.sum() < 2:
        return moved / spread
    together = moved[is_host].mean()
    apart = (moved[is_host] - together) / HOST_SPREAD
    return np.concatenate([moved[~is_host] / spread[~is_host], apart, [together / spread[is_host].mean()]])


def scatter_of(results: Iterable[Result], now: float, share: float = 0.9) -> float | None:
    """The scatter with which the bounds hold so great a share of the measured values; None without any.

    now: the scatter that the results' bounds were made with.
    """
    needed = []
    for r in results:
        if r.predicted and r.measured and r.lower and r.upper:
            miss = math.log(r.measured / r.predicted)
            wide = math.log(r.upper / r.predicted) if miss > 0 else math.log(r.predicted / r.lower)
            needed.append(math.sqrt(max(miss**2 - max(wide**2 - now**2, 0.0), 0.0)))
    return float(np.quantile(needed, share)) if needed else None


def _soft(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Signed root of the Huber loss: as it is when small, growing with the square root when large."""
    size = np.abs(errors)
    large = np.sqrt(np.maximum(2 * TURN * size - TURN**2, 0.0))
    return np.sign(errors) * np.where(size <= TURN, size, large)


def unfitted(engine: Engine) -> Engine:
    """The engine at the starting values of what a fit may move."""
    return engine.replace(
        **{n: start for n, (start, _) in PRIOR.items() if getattr(engine, n).kind == "fitted"}
    )


def fitted(engine: Engine, fit: Fit) -> Engine:
    """The engine with its fitted constants, each in an interval of two standard errors."""
    changes = {}
    for name, value in fit.values.items():
        wide = math.exp(min(2 * fit.errors[name], 1.2))
        changes[name] = Constant(
            value,
            value / wide,
            value * wide,
            "fitted",
            f"{fit.rows} results of measurements.csv and serving points",
        )
    return dataclasses.replace(engine, **changes)  # type: ignore[arg-type]


def write_engines(engines: Iterable[Engine], path: Path, about: str) -> None:
    """Store engines as data/chips/engines.json."""
    stored: dict[str, object] = {"_about": about}
    for engine in engines:
        stored[engine.name] = {
            field.name: _rounded(getattr(engine, field.name))
            for field in dataclasses.fields(engine)
            if isinstance(getattr(engine, field.name), Constant)
        }
    write_whole(path, json.dumps(stored, indent=1) + "\n")


def _rounded(constant: Constant) -> list[object]:
    numbers = [float(f"{v:.4g}") for v in (constant.value, constant.lower, constant.upper)]
    return [*numbers, constant.kind, constant.source]
