"""One optimiser step of training: micro-batches through a pipeline, gradients, and the optimiser.

    step = (micro-batches + bubble) · micro-batch + gradient reduction + optimiser

The slowest rank sets the pace. Head and MTP lie on the last stage; DualPipe gives a rank stages i and
p − 1 − i in turn, the first and the last together, and its pace is their mean. Kernels that carry tokens
between nodes meanwhile hold some of a GPU's cores for good.

The bubble counts micro-batches of idle time: p − 1 for one forward, one backward (1F1B); (p − 1) / v with v
chunks of layers a rank (interleaved); and (p / 2 − 1) · 2/3 for DualPipe, which fills most of it. These
closed forms make a quick average; `workbench.chips.runs` plays the schedule itself, and adds Muon.

Source: V3 report (arXiv 2412.19437), sections 3.2.1, 3.2.2 and table 2; V4 report, section 3.4 for Muon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from workbench.accounting.tensors import tensors
from workbench.chips.clusters import Cluster
from workbench.chips.collectives import NOTHING, Seconds, collective_time
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.pass_cost import pass_cost
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.topology import Topology, topology_of
from workbench.chips.workload import Workload
from workbench.config import ModelConfig

Schedule = Literal["1f1b", "interleaved", "dualpipe"]
SCHEDULES: tuple[Schedule, ...] = ("1f1b", "interleaved", "dualpipe")
# Bytes an optimiser step moves for a parameter: gradient, master weight and two moments in and out.
OPTIMISER_BYTES = 4.0 + 2 * 4.0 + 2 * 2 * 2.0 + 2.0
# Multiprocessors that carry tokens while the others compute (V3 report, section 3.2.2).
CARRYING_CORES = 20
# Share of the gradient reduction that is not hidden behind the last backward passes. Assumed, 0.05 to 0.5.
EXPOSED_REDUCTION = 0.2


@dataclass(frozen=True)
class Recipe:
    """How a step is cut: sequences in all, sequences a micro-batch, schedule, chunks of layers a rank."""

    sequence_tokens: int
    sequences: int
    micro_batch: int = 1
    schedule: Schedule = "1f1b"
    chunks: int = 1
    recompute: Literal["none", "elementwise", "full"] = "elementwise"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"Recipe: schedule {self.schedule!r} is unknown; choose one of {SCHEDULES}")
        for name in ("sequence_tokens", "sequences", "micro_batch", "chunks"):
            if getattr(self, name) < 1:
                raise ValueError(f"Recipe: {name} is {getattr(self, name)}; use 1 or more")

    def bubble(self, stages: int) -> float:
        """Micro-batches of idle time in a step."""
        if self.schedule == "dualpipe":
            # (p/2 − 1)(F&B + B − 3W) with F = W = 1, B = 2 and F&B = 3, over F + B = 3.
            return max(stages / 2 - 1, 0.0) * 2 / 3
        return (stages - 1) / (self.chunks if self.schedule == "interleaved" else 1)


@dataclass(frozen=True)
class TrainingStep:
    """Seconds of a step and of its parts, and tokens a second and chip."""

    step_s: Seconds
    micro_batch_s: Seconds
    micro_batches: float
    bubble: float
    reduction_s: Seconds
    optimiser_s: float
    tokens_per_s_per_chip: float


def training_step(
    config: ModelConfig,
    cluster: Cluster,
    mapping: Mapping,
    recipe: Recipe,
    engine: Engine,
    *,
    precision: Precision = RELEASED,
) -> TrainingStep:
    """The time of one step on all devices of the cluster, in as many replicas of the mapping as it holds.

    The slowest stage sets the pace of a pipeline. Optimiser states are cut over the data-parallel ranks.

    Raises:
        ValueError: the mapping needs more devices than there are, or fewer sequences than replicas.
    """
    if mapping.ranks > cluster.devices:
        raise ValueError(
            f"training_step: the mapping has {mapping.ranks} ranks; {cluster.key} has {cluster.devices} "
            f"devices; use a smaller mapping or more chips"
        )
    replicas = cluster.devices // mapping.ranks
    micro_batches = recipe.sequences / (replicas * mapping.dp * recipe.micro_batch)
    if micro_batches < 1:
        raise ValueError(
            f"training_step: {recipe.sequences} sequences over {replicas * mapping.dp} data-parallel groups "
            f"is less than a micro-batch of {recipe.micro_batch} each; use more sequences or fewer groups"
        )
    workload = Workload(
        phase="train",
        context_tokens=recipe.sequence_tokens,
        batch=recipe.micro_batch,
        recompute=recipe.recompute,
    )
    stages: dict[int, Seconds] = {}
    for pair in _ranks(mapping.pp, recipe.schedule):
        for stage in set(pair) - stages.keys():
            cost = pass_cost(config, cluster, workload, mapping, precision, stage=stage)
            stages[stage] = cost.step(mapping, beside_traffic(engine, cluster, recipe))[0]
    paces = [stages[i].plus(stages[j]).times(0.5) for i, j in _ranks(mapping.pp, recipe.schedule)]
    pace = max(paces, key=lambda seconds: seconds.expected)
    bubble = recipe.bubble(mapping.pp)
    reduction = _reduction(config, cluster, mapping, replicas)
    optimiser = _optimiser_s(config, cluster, mapping, replicas)
    body = pace.times(micro_batches + bubble)
    step = Seconds(
        body.lower + optimiser,
        body.expected + EXPOSED_REDUCTION * reduction.expected + optimiser,
        body.upper + reduction.upper + optimiser,
    )
    tokens = recipe.sequences * recipe.sequence_tokens
    used = replicas * mapping.ranks / int(cluster.chip.logical_devices)
    return TrainingStep(
        step, pace, micro_batches, bubble, reduction, optimiser, tokens / float(step.expected) / used
    )


def _ranks(stages: int, schedule: Schedule) -> list[tuple[int, int]]:
    """Stages of the ranks that may be the slowest; a rank has one, or with DualPipe two in turn."""
    if schedule == "dualpipe":
        return [(0, stages - 1), ((stages - 1) // 2, stages // 2)]
    return [(0, 0), (stages - 1, stages - 1)]


def beside_traffic(engine: Engine, cluster: Cluster, recipe: Recipe) -> Engine:
    """The engine where some cores do nothing but carry tokens: kernels have the others.

    Raises:
        ValueError: DualPipe on a chip that has no other cores.
    """
    cores = cluster.chip.matrix_cores
    if recipe.schedule != "dualpipe" or cluster.chip.family != "sm" or not cores:
        return engine
    if cores <= CARRYING_CORES:
        raise ValueError(
            f"training_step: {cluster.chip.key} has {cores:g} cores; DualPipe takes {CARRYING_CORES} of them "
            f"to carry tokens; choose another schedule"
        )
    slow, share = engine.slowdown, cores / (cores - CARRYING_CORES)
    ends = {name: getattr(slow, name) * share for name in ("value", "lower", "upper")}
    return replace(engine, slowdown=replace(slow, **ends))


def _reduction(config: ModelConfig, cluster: Cluster, mapping: Mapping, replicas: int) -> Seconds:
    """Gradients summed over the ranks that hold the same weights: dense ones and experts apart."""
    topology, total = topology_of(cluster), NOTHING
    sets = mapping.stage_ranks // (mapping.ep * mapping.moe_tp) * replicas
    for is_expert, ways, ranks in (
        (False, mapping.attention_tp * mapping.pp, mapping.dp * replicas),
        (True, mapping.ep * mapping.moe_tp * mapping.pp, sets),
    ):
        weights = sum(t.parameters for t in tensors(config) if (t.kind == "experts") == is_expert)
        if ranks > 1:
            # Peers of a shard lie a stage or an expert group apart: over the outermost tier they span.
            outer = collective_time("all_reduce", 2.0 * weights / ways, ranks, _from_outside(topology, ways))
            total = total.plus(outer)
    return total


def _from_outside(topology: Topology, inner: int) -> Topology:
    """The topology as ranks see it that lie `inner` devices apart: inner tiers that this fills drop out."""
    tiers = tuple(t for t in topology.tiers if t.size > inner) or topology.tiers[-1:]
    return Topology(tiers)


def _optimiser_s(config: ModelConfig, cluster: Cluster, mapping: Mapping, replicas: int) -> float:
    """Moving states and weights once, cut over the data-parallel ranks."""
    total = sum(t.parameters for t in tensors(config) if not t.is_buffer)
    return OPTIMISER_BYTES * total / cluster.devices / cluster.chip.device().need("memory_byte_per_s")
