"""Which constants move the answer: each one taken to both ends of its interval, all others left alone.

Engine constants, kernel constants of the chip's generation, link constants, rates of the chip that are only
known as a band, and the balance of experts. The rows are those of a tornado chart, the longest bar first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.chips.clusters import Cluster
from workbench.chips.collectives import NOTHING, Seconds
from workbench.chips.engines import CONSTANTS as ENGINE_CONSTANTS
from workbench.chips.engines import Engine
from workbench.chips.kernels import Calibration, kernel_times, load_calibration
from workbench.chips.kernels.constants import Constant
from workbench.chips.mapping import Mapping, exchanges
from workbench.chips.pass_cost import PassCost, pass_cost
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.topology import CONSTANTS as LINK_CONSTANTS
from workbench.chips.topology import Topology, topology_of
from workbench.chips.workload import Workload
from workbench.config import ModelConfig

# Service without forced balance: the busiest rank, and the spread of the experts' popularity (chips.md, a7).
IMBALANCE, SKEW = (1.0, 2.0), (0.0, 1.3)
# What an engine holds back of the memory does not change the time of a given batch.
_NOT_TIME = ("memory_share", "reserve_bytes")


@dataclass(frozen=True)
class Effect:
    """One constant: its interval and the seconds of a pass at both ends. kind: fitted, assumed, …"""

    name: str
    group: str
    kind: str
    lower: float
    upper: float
    lower_s: float
    upper_s: float
    base_s: float

    @property
    def swing(self) -> float:
        """Length of the bar over the base."""
        return abs(self.upper_s - self.lower_s) / self.base_s


def sensitivity(
    config: ModelConfig,
    cluster: Cluster,
    workload: Workload,
    mapping: Mapping,
    engine: Engine,
    *,
    precision: Precision = RELEASED,
) -> list[Effect]:
    """Effects of every constant with an interval on one decoding step, the largest swing first.

    Raises:
        ValueError: a pass that is no decoding step, or whose expert traffic hides behind something.
    """
    if workload.phase != "decode" or mapping.overlap != "none":
        raise ValueError(
            f"sensitivity: got phase {workload.phase!r} and overlap {mapping.overlap!r}; it varies a "
            f"decoding step without overlap; use those"
        )
    cost = pass_cost(config, cluster, workload, mapping, precision)
    calibration, place = load_calibration(), topology_of(cluster)

    def seconds(one: PassCost, stack: Engine = engine) -> float:
        return float(one.step(mapping, stack)[0].expected)

    base = seconds(cost)
    found: list[Effect] = []

    def add(name: str, group: str, kind: str, ends: tuple[float, float], times: list[float]) -> None:
        found.append(Effect(name, group, kind, ends[0], ends[1], times[0], times[1], base))

    for name in (n for n in ENGINE_CONSTANTS if n not in _NOT_TIME):
        constant = getattr(engine, name)
        ends = (constant.lower, constant.upper)
        add(name, "engine", constant.kind, ends, [seconds(cost, engine.replace(**{name: v})) for v in ends])
    for key, constant in _kernel_constants(cluster, calibration):
        ends = (constant.lower, constant.upper)
        times = [seconds(_recalibrated(cost, cluster, calibration, key, v)) for v in ends]
        add(key, "kernels", constant.kind, ends, times)
    for name in LINK_CONSTANTS:
        constants = [getattr(tier.link, name) for tier in place.tiers]
        if constants:
            changed = [_moved(place, name, is_upper) for is_upper in (False, True)]
            times = [seconds(_resent(cost, config, workload, mapping, t)) for t in changed]
            add(name, "links", constants[0].kind, (constants[0].lower, constants[0].upper), times)
    for name, quantity in cluster.chip.quantities.items():
        if quantity.is_banded and (name in cluster.chip.peak_flop_per_s or name == "memory_byte_per_s"):
            ends = (float(quantity.lower or 0), float(quantity.upper or 0))
            chips = [cluster.chip.replace(**{name: v}, key=cluster.chip.key) for v in ends]
            costs = [
                pass_cost(config, dataclasses.replace(cluster, chip=c), workload, mapping, precision)
                for c in chips
            ]
            add(name, "chip", quantity.kind, ends, [seconds(c) for c in costs])
    if mapping.has_expert_traffic(workload.phase):
        for name, ends in (("expert_imbalance", IMBALANCE), ("routing_skew", SKEW)):
            layouts = [mapping.replace(**{name: v}) for v in ends]
            costs = [pass_cost(config, cluster, workload, m, precision) for m in layouts]
            add(name, "routing", "assumed", ends, [seconds(c) for c in costs])
    return sorted((e for e in found if e.swing > 0), key=lambda e: -e.swing)


def _kernel_constants(cluster: Cluster, calibration: Calibration) -> Iterator[tuple[str, Constant]]:
    chip = cluster.chip
    scopes = (calibration.generations.get(chip.key, chip.generation or ""), chip.family)
    for key, constant in calibration.items():
        if key.partition("/")[0] in scopes and constant.lower < constant.upper:
            yield key, constant


def _recalibrated(
    cost: PassCost, cluster: Cluster, calibration: Calibration, key: str, value: float
) -> PassCost:
    """The cost with one kernel constant at another value."""
    changed = dict(calibration)
    changed[key] = dataclasses.replace(calibration[key], value=value)
    times = kernel_times(
        cost.operations, cluster.chip, calibration=Calibration(changed, calibration.generations)
    )
    counts = np.array([float(o.count) for o in cost.operations]) * cost.passes
    sums = [float(counts @ np.ravel(t)) for t in (times.lower_s, times.expected_s, times.upper_s)]
    launch = float(counts @ np.ravel(times.launch_s))
    return dataclasses.replace(cost, kernels=Seconds(*sums), launch=launch, times=times)


def _moved(place: Topology, name: str, is_upper: bool) -> Topology:
    """All links with one constant at one end."""
    tiers = []
    for tier in place.tiers:
        old = getattr(tier.link, name)
        new = dataclasses.replace(old, value=old.upper if is_upper else old.lower)
        tiers.append(dataclasses.replace(tier, link=dataclasses.replace(tier.link, **{name: new})))
    return Topology(tuple(tiers))


def _resent(
    cost: PassCost, config: ModelConfig, workload: Workload, mapping: Mapping, place: Topology
) -> PassCost:
    """The cost with messages over other links."""
    traffic, other = NOTHING, NOTHING
    for e in exchanges(config, workload, mapping, place):
        if e.is_expert_traffic:
            traffic = traffic.plus(e.time.times(e.count))
        else:
            other = other.plus(e.time.times(e.count))
    return dataclasses.replace(cost, traffic=traffic, other=other)
