"""The engines' constants fitted to the tables, and each system predicted by constants fitted without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.chips.engines import Engine
from workbench.chips.topology import Constant
from workbench.chips.validation.fit import Fit, fit_engine, fitted, scatter_of, unfitted
from workbench.chips.validation.judge import current_engines, row_results
from workbench.chips.validation.rows import Result, Row, read_measurements, read_table
from workbench.chips.validation.serving_table import NEEDED, Point, point_result, usable_points
from workbench.chips.validation.setup import engine_of
from workbench.chips.validation.training import engine_of_training
from workbench.chips.validation.wording import plain

# What each engine's rows can tell apart; the others keep their starting values.
_DECODING = ("launch_share", "slowdown")
CONSTANTS = {
    "sglang": (*_DECODING, "draft_s", "dispatch_s", "older_dispatch_s", "arm_dispatch_s"),
    "sglang-v4": (*_DECODING, "draft_s", "dispatch_s", "older_dispatch_s", "arm_dispatch_s"),
    "trtllm": (*_DECODING, "draft_s", "dispatch_s", "older_dispatch_s"),
    "vllm": _DECODING,
    "vllm-v4": (*_DECODING, "dispatch_s"),
    "vllm-ascend": (*_DECODING, "older_dispatch_s"),
    "cann-910": (*_DECODING, "draft_s"),
    "cann-950": (*_DECODING, "draft_s"),
    "deepseek": ("slowdown",),
    "rocm": ("slowdown", "older_dispatch_s"),
    "megatron": ("slowdown",),
    "dualpipe": ("slowdown",),
    "mindspeed": ("slowdown",),
}
# A table of hundreds of points must not drown the rows of other systems: every so many of them count.
EVERY = 8
# Results from which an engine has a scatter of its own.
ENOUGH = 20
# No engine is known better: two published runs of one set-up differ by as much.
LEAST_SCATTER = 0.1


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
    for row in map(plain, read_measurements(measurements)):
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


def left_out(found: list[Case], stacks: dict[str, Engine]) -> dict[str, list[Result]]:
    """Every case, by its engine, predicted by engines fitted without any case of its system."""
    results: dict[str, list[Result]] = {}
    for system in dict.fromkeys(case.system for case in found):
        mine = [case for case in found if case.system == system]
        names = {case.engine for case in mine}
        others = [case for case in found if case.system != system and case.engine in names]
        # An engine that only this system shows goes back to the starting values that all engines share.
        start = stacks | {name: unfitted(stacks[name]) for name in names}
        engines, _ = fit_all(others, start)
        for case in mine:
            apart = [replace(r, table="left out") for r in case.results(engines)]
            results.setdefault(case.engine, []).extend(apart)
    return results


def with_scatter(stacks: dict[str, Engine], apart: dict[str, list[Result]]) -> dict[str, Engine]:
    """Engines whose bounds hold nine in ten of the results of `left_out`.

    An engine with few results takes the scatter of all, or its own if that is larger.
    """
    every = [r for name, results in apart.items() for r in _widened(results, stacks[name])]
    common = scatter_of(every, 0.0) or 0.0
    made = {}
    for name, stack in stacks.items():
        mine = [r for r in apart.get(name, []) if r.predicted and r.family != "exact"]
        own = scatter_of(mine, stack.scatter.value) or 0.0
        value = max(own, LEAST_SCATTER) if len(mine) >= ENOUGH else max(own, common)
        source = f"{len(mine)} results of systems that the fit had not seen"
        source += "" if len(mine) >= ENOUGH else ", or those of all engines"
        constant = Constant(value, 0.7 * value, 1.4 * value, "fitted", source)
        made[name] = replace(stack, scatter=constant)
    return made


def _widened(results: list[Result], stack: Engine) -> list[Result]:
    """Results with the bounds that the engine's other constants leave."""
    found = []
    for r in results:
        if r.predicted and r.lower and r.upper and r.family != "exact":
            down, up = (
                math.sqrt(max(math.log(x) ** 2 - stack.scatter.value**2, 0.0))
                for x in (r.predicted / r.lower, r.upper / r.predicted)
            )
            found.append(replace(r, lower=r.predicted * math.exp(-down), upper=r.predicted * math.exp(up)))
    return found
