"""The engines' constants fitted to the tables, and each system predicted by constants fitted without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.chips.engines import Engine
from workbench.chips.validation.fit import Fit, fit_engine, fitted, unfitted
from workbench.chips.validation.judge import current_engines, row_results
from workbench.chips.validation.rows import Result, Row, read_measurements, read_table
from workbench.chips.validation.serving_table import NEEDED, Point, point_result, usable_points
from workbench.chips.validation.setup import engine_of
from workbench.chips.validation.training import engine_of_training

# What each engine's rows can tell apart; the others keep their starting values.
_DECODING = ("launch_share", "slowdown")
CONSTANTS = {
    "sglang": (*_DECODING, "dispatch_s", "older_dispatch_s", "arm_dispatch_s"),
    "sglang-v4": (*_DECODING, "dispatch_s", "older_dispatch_s", "arm_dispatch_s"),
    "trtllm": (*_DECODING, "dispatch_s", "older_dispatch_s"),
    "vllm": (*_DECODING, "dispatch_s"),
    "vllm-ascend": (*_DECODING, "older_dispatch_s"),
    "cann-910": _DECODING,
    "cann-950": _DECODING,
    "deepseek": ("slowdown",),
    "rocm": ("slowdown", "older_dispatch_s"),
    "megatron": ("slowdown",),
    "dualpipe": ("slowdown",),
    "mindspeed": ("slowdown",),
}
# A table of hundreds of points must not drown the rows of other systems: every so many of them count.
EVERY = 6


@dataclass(frozen=True)
class Case:
    """One row or point: its engine, its system, and its results for a set of engines."""

    engine: str
    system: str
    results: Callable[[dict[str, Engine]], list[Result]]


def cases(measurements: Path, serving: Path | None) -> list[Case]:
    """Everything that the engines' constants bear on and that can be predicted."""
    stacks = current_engines()
    found = []
    for row in read_measurements(measurements):
        name = _engine(row)
        if name and any(r.predicted for r in row_results(row, stacks)):
            found.append(Case(name, row.system, _of_row(row)))
    if serving is not None:
        points = usable_points(read_table(serving, NEEDED))
        for point in points[::EVERY]:
            if point_result(point, stacks).predicted:
                found.append(Case(point.engine, point.system, _of_point(point)))
    return found


def _engine(row: Row) -> str | None:
    phase = row.phase.lower()
    if phase.startswith("train"):
        return engine_of_training(row)
    if phase in ("decode", "prefill", "service", "mixed") and "gain" not in row.metric:
        return engine_of(row)
    return None


def _of_row(row: Row) -> Callable[[dict[str, Engine]], list[Result]]:
    return lambda stacks: row_results(row, stacks)


def _of_point(point: Point) -> Callable[[dict[str, Engine]], list[Result]]:
    return lambda stacks: [point_result(point, stacks)]


def fit_all(found: Iterable[Case], stacks: dict[str, Engine]) -> tuple[dict[str, Engine], list[Fit]]:
    """All engines fitted to these cases; an engine without a case keeps its constants."""
    by_engine: dict[str, list[Case]] = {}
    for case in found:
        by_engine.setdefault(case.engine, []).append(case)
    fits, now = [], dict(stacks)
    for name, mine in by_engine.items():
        if name not in CONSTANTS:
            continue

        def predict(engine: Engine, mine: list[Case] = mine, name: str = name) -> list[Result]:
            return [r for case in mine for r in case.results(now | {name: engine})]

        fit = fit_engine(stacks[name], CONSTANTS[name], predict)
        now[name] = fitted(stacks[name], fit)
        fits.append(fit)
    return now, fits


def left_out(found: list[Case], stacks: dict[str, Engine]) -> list[Result]:
    """Every case predicted by engines fitted without any case of its system."""
    results = []
    for system in dict.fromkeys(case.system for case in found):
        mine = [case for case in found if case.system == system]
        names = {case.engine for case in mine}
        others = [case for case in found if case.system != system and case.engine in names]
        # An engine that only this system shows goes back to the starting values that all engines share.
        start = stacks | {name: unfitted(stacks[name]) for name in names}
        engines, _ = fit_all(others, start)
        for case in mine:
            results += [replace(r, table="left out") for r in case.results(engines)]
    return results
