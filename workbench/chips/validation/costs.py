"""Costs of passes, kept: a fit asks for the same ones again and again with other engine constants."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from workbench.chips.collectives import Seconds
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.pass_cost import PassCost, pass_cost
from workbench.chips.precision import Precision
from workbench.chips.validation.setup import Setup, cluster_of, config_of
from workbench.chips.workload import Workload

GRID = tuple(np.unique(np.round(np.geomspace(1, 2048, 28), 0)))


@lru_cache(maxsize=4096)
def _one(name: str, chip: str, chips: int, load: Workload, mapping: Mapping, recipe: Precision) -> PassCost:
    return pass_cost(config_of(name), cluster_of(chip, chips), load, mapping, recipe)


def cost_of(setup: Setup, workload: Workload, mapping: Mapping) -> PassCost:
    """The cost of one pass of plain sizes."""
    chips = setup.cluster(mapping.ranks).chips
    return _one(setup.config_name, setup.chip.key, chips, workload, mapping, setup.precision)


def step_of(setup: Setup, workload: Workload, mapping: Mapping, engine: Engine) -> Seconds:
    """Seconds of one pass of plain sizes on an engine."""
    step, _ = cost_of(setup, workload, mapping).step(mapping, engine)
    return step


@lru_cache(maxsize=1024)
def _curve(
    name: str, chip: str, chips: int, load: Workload, mapping: Mapping, recipe: Precision, busy: float
) -> PassCost:
    many = load.replace(batch=np.array(GRID))
    return pass_cost(config_of(name), cluster_of(chip, chips), many, mapping, recipe, busy_groups=busy)


def forget() -> None:
    """Drop what was kept, so that a prediction can be timed as if it were the first."""
    _one.cache_clear()
    _curve.cache_clear()


def step_curve(
    setup: Setup, workload: Workload, mapping: Mapping, engine: Engine, *, busy_groups: float = 1.0
) -> Callable[[float], float]:
    """Seconds of a pass as a function of the batch of one attention group."""
    chips = setup.cluster(mapping.ranks).chips
    one = workload.replace(batch=1)
    cost = _curve(setup.config_name, setup.chip.key, chips, one, mapping, setup.precision, busy_groups)
    step, _ = cost.step(mapping, engine)
    seconds = np.asarray(step.expected)
    return lambda batch: float(np.interp(batch, GRID, seconds))


def step_band(
    setup: Setup, workload: Workload, mapping: Mapping, engine: Engine, batch: float
) -> tuple[float, float]:
    """Lower and upper bound of a pass over its expected time, at a batch of one attention group."""
    chips = setup.cluster(mapping.ranks).chips
    one = workload.replace(batch=1)
    cost = _curve(setup.config_name, setup.chip.key, chips, one, mapping, setup.precision, 1.0)
    step, _ = cost.step(mapping, engine)
    lower, upper = step.lower / step.expected, step.upper / step.expected
    return float(np.interp(batch, GRID, lower)), float(np.interp(batch, GRID, upper))
