"""Every row of the tables through its predictor, and the errors by family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from workbench.chips.engines import Engine, engine, engines
from workbench.chips.validation.exact import exact_results, is_exact
from workbench.chips.validation.kernel_table import table_results
from workbench.chips.validation.kernels import kernel_results
from workbench.chips.validation.rows import UNREADABLE, Result, Row, Unpredictable, read_measurements
from workbench.chips.validation.service_rows import service_results
from workbench.chips.validation.serving_table import serving_results
from workbench.chips.validation.steps import decode_results, prefill_results
from workbench.chips.validation.text import numbers
from workbench.chips.validation.training import training_results
from workbench.chips.validation.wording import plain

NO_NUMBER = "the sizes in the row lead to no number"


@dataclass(frozen=True)
class Summary:
    """Errors of one family: rows predicted, rows left out, median and 90th percentile of |error|.

    inside: share of the measured values within the bounds, where there are bounds.
    """

    family: str
    predicted: int
    excluded: int
    median: float | None
    ninetieth: float | None
    bias: float | None
    inside: float | None


def current_engines() -> dict[str, Engine]:
    """All engines with their stored constants."""
    return {name: engine(name) for name in engines()}


def validate(
    measurements: Path | str | None = None,
    kernels: Path | str | None = None,
    serving: Path | str | None = None,
    engine_for: dict[str, Engine] | None = None,
) -> list[Result]:
    """Predictions for every row of up to three tables, in their order.

    Raises:
        ValueError: a file cannot be read, or lacks a column.
    """
    stacks = engine_for or current_engines()
    results: list[Result] = []
    # A cell such as "inf" or "nan" may reach the arithmetic; what comes of it is left out with a reason.
    with np.errstate(all="ignore"):
        if measurements is not None:
            for row in read_measurements(measurements):
                results += row_results(row, stacks)
        if kernels is not None:
            results += table_results(kernels)
        if serving is not None:
            results += serving_results(serving, stacks)
    return results


def row_results(row: Row, engine_for: dict[str, Engine]) -> list[Result]:
    """The results of one measurement row: one a metric, or one with the reason for none."""
    row = plain(row)
    try:
        results = list(_predictor(row, engine_for))
        if not results:
            raise Unpredictable("the row holds no number to stand beside")
        return [r if _is_sound(r) else replace(r, predicted=None, excluded=NO_NUMBER) for r in results]
    except Unpredictable as reason:
        text = str(reason)
    except ValueError as error:
        text = f"cannot be set up: {error}"
    except UNREADABLE as error:
        text = f"not understood: {type(error).__name__} {error}"
    values = numbers(row.value)
    measured = values[0] if values else None
    return [
        Result(
            row.id, "measurements", row.system, family_of(row), row.metric, measured, row.unit, excluded=text
        )
    ]


def _is_sound(result: Result) -> bool:
    """Whether a result that was predicted has a number that can be one."""
    return bool(result.excluded) or (result.predicted is not None and 0 < result.predicted < math.inf)


def family_of(row: Row) -> str:
    """The family that a row's errors count in."""
    phase = row.phase.lower()
    if is_exact(row):
        return "exact"
    if phase.startswith(("train", "rl")):
        return "training"
    return {"service": "throughput", "mixed": "throughput", "offline": "throughput"}.get(
        phase, phase or "other"
    )


def _predictor(row: Row, engine_for: dict[str, Engine]) -> Iterator[Result]:
    phase = row.phase.lower()
    if is_exact(row):
        return exact_results(row)
    if phase == "kernel":
        return kernel_results(row)
    if phase == "decode":
        return decode_results(row, engine_for)
    if phase == "prefill":
        return prefill_results(row, engine_for)
    if phase in ("service", "mixed", "offline"):
        return service_results(row, engine_for)
    if phase.startswith(("train", "rl")):
        return training_results(row, engine_for)
    if phase == "price":
        raise Unpredictable("a list price: what a provider asks, not what a chip does")
    if phase == "cost":
        raise Unpredictable("a cost: the price of the hour and the point on the frontier are not stated")
    raise Unpredictable(f"phase {row.phase!r} is not simulated")


def summaries(results: Iterable[Result]) -> list[Summary]:
    """Errors by family, in the order in which families first appear."""
    by_family: dict[str, list[Result]] = {}
    for result in results:
        by_family.setdefault(result.family, []).append(result)
    return [_summary(family, mine) for family, mine in by_family.items()]


def _summary(family: str, results: list[Result]) -> Summary:
    errors = np.array([r.error for r in results if r.error is not None], dtype=float)
    left_out = sum(bool(r.excluded) for r in results)
    if not errors.size:
        return Summary(family, 0, left_out, None, None, None, None)
    size = np.abs(errors)
    banded = [(r.lower, r.measured, r.upper) for r in results if r.predicted and r.upper and r.measured]
    inside = [low is not None and low <= m <= high for low, m, high in banded]
    return Summary(
        family, errors.size, left_out, float(np.median(size)), float(np.quantile(size, 0.9)),
        float(np.median(errors)), float(np.mean(inside)) if inside and family != "exact" else None,
    )  # fmt: skip
