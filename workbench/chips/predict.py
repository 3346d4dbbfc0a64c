"""How long one pass takes on a cluster, with bounds, rows for every part, memory, and what limits it.

The bounds of the pass are meant to hold nine measured values in ten; on chips of which no kernel was measured
they are as wide as the chips' own bands make them. Bounds of a row are those of its kernel or message.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from workbench.chips.clusters import Cluster
from workbench.chips.collectives import Seconds
from workbench.chips.engines import Engine, engine
from workbench.chips.kernels import Calibration
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import MemoryRow, check_fit, memory_rows, total_bytes
from workbench.chips.pass_cost import PassCost, TimeRow, is_plain, pass_cost
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.topology import Topology
from workbench.chips.workload import Size, Workload
from workbench.config import ModelConfig

# Settings of a sweep that are computed together: their numbers for all operations fit the last cache.
BLOCK = 4096


@dataclass(frozen=True)
class Prediction:
    """One pass of a model on a cluster.

    step_s: seconds of the pass, between bounds; tokens_per_step: of all groups together (accepted ones in
    decoding); hidden_s: what overlap takes off the sum of all parts; memory: of the fullest device.
    """

    workload: Workload
    mapping: Mapping
    engine: Engine
    cost: PassCost
    step_s: Seconds
    tokens_per_step: Size
    ranks: int
    devices_per_chip: int
    hidden_s: Size
    memory: tuple[MemoryRow, ...]
    memory_bytes: float

    @cached_property
    def rows(self) -> tuple[TimeRow, ...]:
        """Where the time goes before anything overlaps."""
        return tuple(self.cost.rows(self.engine))

    @cached_property
    def limiting(self) -> Any:
        """What most of the expected time is spent on, setting by setting."""
        return _limiting(self.rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or converted."""
        return tuple(dict.fromkeys(self.cost.times.notes))

    @property
    def chips(self) -> float:
        """Packages of one replica."""
        return self.ranks / self.devices_per_chip

    @property
    def tpot_s(self) -> Size:
        """Seconds an output token takes its reader (decoding): a step yields several with drafts."""
        return self.step_s.expected / self.workload.tokens_per_step

    @property
    def tokens_per_s_per_chip(self) -> Size:
        return self.tokens_per_step / self.step_s.expected / self.chips

    @property
    def used_bytes(self) -> Size:
        return total_bytes(list(self.memory))

    @property
    def fits(self) -> Any:
        return self.used_bytes <= self.memory_bytes


def predict(
    config: ModelConfig,
    cluster: Cluster,
    workload: Workload,
    mapping: Mapping | None = None,
    *,
    precision: Precision = RELEASED,
    engine_name: str = "graph",
    with_engine: Engine | None = None,
    check_memory: bool = True,
    calibration: Calibration | None = None,
    topology: Topology | None = None,
) -> Prediction:
    """The time of one pass. Without a mapping: data-parallel attention, experts over all devices.

    The workload's batch is that of one attention group. All its sizes may be arrays: then so are the times.
    calibration and topology replace the package's constants of kernels and links.

    Raises:
        ValueError: the mapping needs more devices than the cluster has, does not divide the model, or the
            model does not fit (unless check_memory is False).
    """
    mapping = mapping or default_mapping(config, cluster)
    stack = with_engine or engine(engine_name)
    if mapping.ranks > cluster.devices:
        raise ValueError(
            f"predict: the mapping has {mapping.ranks} ranks; {cluster.key} has {cluster.devices} devices; "
            f"use a smaller mapping or load_cluster(…, chips=…) with more"
        )
    chip = cluster.chip
    find = _kept_memory if is_plain(workload) else memory_rows
    memory = find(config, workload, mapping, precision, engine_bytes=stack.reserve_bytes.value)
    room = chip.device().need("memory_bytes") * stack.memory_share.value
    if check_memory:
        check_fit(
            memory,
            room,
            f"one device of {chip.name}, of which the engine fills {stack.memory_share.value:.0%}",
        )
    cost = pass_cost(
        config, cluster, workload, mapping, precision, calibration=calibration, topology=topology
    )
    step, hidden = cost.step(mapping, stack)
    tokens = workload.batch * mapping.dp
    if workload.phase == "decode":
        tokens = tokens * workload.tokens_per_step
    else:
        tokens = tokens * workload.tokens_computed
    return Prediction(
        workload=workload, mapping=mapping, engine=stack, cost=cost, step_s=step, tokens_per_step=tokens,
        ranks=mapping.ranks, devices_per_chip=int(chip.logical_devices), hidden_s=hidden,
        memory=tuple(memory), memory_bytes=room,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _kept_memory(
    config: ModelConfig, workload: Workload, mapping: Mapping, precision: Precision, *, engine_bytes: float
) -> list[MemoryRow]:
    """As memory_rows, remembered: it does not depend on the chip."""
    return memory_rows(config, workload, mapping, precision, engine_bytes=engine_bytes)


def sweep(
    config: ModelConfig,
    cluster: Cluster,
    workload: Workload,
    mapping: Mapping,
    *,
    precision: Precision = RELEASED,
    with_engine: Engine | None = None,
) -> Seconds:
    """Times of very many settings and nothing else: blocks of them stay in the processor's caches.

    The workload's batch and context_tokens are numbers or arrays of one axis; memory is not checked.

    Shapes: (n,) -> (n,) each.
    """
    stack = with_engine or engine("graph")
    batch, context = np.broadcast_arrays(workload.batch, workload.context_tokens)
    ends = []
    for start in range(0, batch.size, BLOCK):
        part = slice(start, start + BLOCK)
        block = workload.replace(batch=batch[part], context_tokens=context[part])
        ends.append(pass_cost(config, cluster, block, mapping, precision).step(mapping, stack)[0])
    return Seconds(*(np.concatenate(end) for end in zip(*ends, strict=True)))


def default_mapping(config: ModelConfig, cluster: Cluster) -> Mapping:
    """Data-parallel attention and experts over all devices; the largest degree that divides the experts."""
    if not config.n_routed_experts:
        return Mapping(attention_tp=min(cluster.devices, config.num_key_value_heads))
    ranks = max(n for n in range(1, cluster.devices + 1) if config.n_routed_experts % n == 0)
    return Mapping(dp=ranks, ep=ranks)


def _limiting(rows: tuple[TimeRow, ...]) -> Any:
    """What most of the expected time is spent on, setting by setting."""
    shape = np.broadcast_shapes(*(np.shape(row.time.expected) for row in rows))
    if shape == ():
        sums: dict[str, float] = {}
        for row in rows:
            name = str(np.ravel(row.limit)[0])
            sums[name] = sums.get(name, 0.0) + float(row.time.expected)
        return max(sums, key=lambda name: sums[name])
    total: dict[str, np.ndarray] = {}
    for row in rows:
        time = np.broadcast_to(row.time.expected, shape)
        limits = np.asarray(row.limit)
        if limits.shape and limits.shape != shape:
            limits = limits.reshape(-1)[0]
        for name in np.unique(limits):
            mine = np.where(np.broadcast_to(limits, shape) == name, time, 0.0)
            total[str(name)] = total.get(str(name), np.zeros(shape)) + mine
    names = np.array(list(total))
    return names[np.argmax(np.stack(list(total.values())), axis=0)]
