"""A training step with its pipeline played out: uneven stages, the schedule's own bubble, Muon.

`training_step` prices what a rank does and what gradients cost; here every stage gets its own time, and
the schedule simulator decides who waits for whom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.accounting.flop import flop_per_prefill
from workbench.accounting.training import training_flop_per_token
from workbench.chips.clusters import Cluster
from workbench.chips.collectives import Seconds
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.pass_cost import PassCost, pass_cost
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.runs.muon import muon_s
from workbench.chips.runs.pipeline import PartTime, Timeline, play
from workbench.chips.topology import topology_of
from workbench.chips.training_step import (
    EXPOSED_REDUCTION,
    Recipe,
    TrainingStep,
    beside_traffic,
    training_step,
)
from workbench.chips.workload import Workload
from workbench.config import ModelConfig
from workbench.units import HOUR_S

Optimiser = Literal["muon", "adamw"]
Stages = Literal["level", "as cut"]
_ENDS = ("lower", "expected", "upper")


@dataclass(frozen=True)
class RunStep:
    """One optimiser step. base: as `training_step` prices it with an average bubble.

    pipeline_s: the played schedule; reduction_s: gradients, the part that shows; optimiser_s: states in and
    out, and Newton-Schulz with Muon. mfu counts the model's FLOPs, without recomputation, against the peak in
    BF16.
    """

    step_s: Seconds
    pipeline_s: Seconds
    reduction_s: Seconds
    optimiser_s: Seconds
    timeline: Timeline
    tokens: float
    tokens_per_s_per_chip: float
    mfu: float
    base: TrainingStep

    def chip_hours(self, tokens: float, goodput: float = 1.0) -> Seconds:
        """Chip-hours to train on so many tokens, bounds along with the step's; goodput: share of useful time.

        Raises:
            ValueError: a goodput that is not above 0 and at most 1.
        """
        if not 0 < goodput <= 1:
            raise ValueError(f"chip_hours: goodput is {goodput}; it is a share of time; use above 0 to 1")
        expected = tokens / (self.tokens_per_s_per_chip * goodput) / HOUR_S
        return self.step_s.times(expected / float(self.step_s.expected))


def model_flop_per_token(config: ModelConfig, sequence_tokens: int) -> float:
    """FLOPs to train on one token, causal attention counted, nothing computed twice."""
    if config.model_type == "deepseek_v4" or config.index_topk:
        return 3.0 * float(flop_per_prefill(config, sequence_tokens)) / sequence_tokens
    return training_flop_per_token(config, sequence_tokens)


def run_step(
    config: ModelConfig,
    cluster: Cluster,
    mapping: Mapping,
    recipe: Recipe,
    engine: Engine,
    *,
    precision: Precision = RELEASED,
    optimiser: Optimiser = "muon",
    stages: Stages = "level",
    straggler: float = 1.0,
) -> RunStep:
    """The time of one step on all devices of a cluster, and what its parts are.

    stages "level": all take as long as those of the slowest rank on average, which is what the training
    engines' constants were fitted to; "as cut": each its own time, with layers cut evenly and head and MTP
    on the last.
    straggler: how much longer everything takes because the slowest rank sets the pace.

    Raises:
        ValueError: an unknown optimiser or kind of stages, or what `training_step` and `play` refuse.
    """
    if optimiser not in ("muon", "adamw"):
        raise ValueError(f"run_step: optimiser {optimiser!r} is unknown; choose 'muon' or 'adamw'")
    if stages not in ("level", "as cut"):
        raise ValueError(f"run_step: stages {stages!r} is unknown; choose 'level' or 'as cut'")
    base = training_step(config, cluster, mapping, recipe, engine, precision=precision)
    micro_batches = round(base.micro_batches)
    chunks = recipe.chunks if recipe.schedule == "interleaved" else 1
    at = stage_times(config, cluster, mapping, recipe, engine, precision)
    ranks = [(i, mapping.pp - 1 - i if recipe.schedule == "dualpipe" else i) for i in range(mapping.pp)]
    slowest = max(ranks, key=lambda own: sum(at("expected")[stage].pair_s for stage in own))
    hop = topology_of(cluster).tiers[-1].link.launch_s.value if mapping.pp > 1 else 0.0
    played = {}
    for end in _ENDS:
        parts = at(end)
        if stages == "level":
            parts = [parts[slowest[0]].mean(parts[slowest[1]])] * mapping.pp
        parts = [part.cut(chunks) for _ in range(chunks) for part in parts]
        played[end] = play(recipe.schedule, mapping.pp, micro_batches, parts, chunks=chunks, hop_s=hop)
    pipeline = Seconds(*(played[end].seconds * straggler for end in _ENDS))
    shown = Seconds(0.0, EXPOSED_REDUCTION * base.reduction_s.expected, base.reduction_s.upper)
    moved = Seconds(base.optimiser_s, base.optimiser_s, base.optimiser_s)
    update = moved.plus(muon_s(config, cluster.chip, cluster.devices)) if optimiser == "muon" else moved
    step = pipeline.plus(shown).plus(update)
    tokens = recipe.sequences * recipe.sequence_tokens * micro_batches / base.micro_batches
    chips = (cluster.devices // mapping.ranks) * mapping.ranks / int(cluster.chip.logical_devices)
    rate = tokens / float(step.expected) / chips
    mfu = rate * model_flop_per_token(config, recipe.sequence_tokens) / cluster.chip.peak_flop_per_s["bf16"]
    return RunStep(step, pipeline, shown, update, played["expected"], tokens, rate, mfu, base)


def stage_times(
    config: ModelConfig,
    cluster: Cluster,
    mapping: Mapping,
    recipe: Recipe,
    engine: Engine,
    precision: Precision,
) -> Callable[[str], list[PartTime]]:
    """For each end of the bounds, seconds of every pipeline stage: forward, backward, and run together.

    Expert traffic of one direction hides behind the other where the mapping overlaps two micro-batches, so a
    pass by itself (while the pipeline fills) is slower than its share of a pair. Weights take the part of
    the backward pass that their gradients' products do.
    """
    workload = Workload(
        phase="train",
        context_tokens=recipe.sequence_tokens,
        batch=recipe.micro_batch,
        recompute=recipe.recompute,
    )
    costs: dict[tuple[object, ...], PassCost] = {}
    stages = []
    for stage in range(mapping.pp):
        shard = mapping.shard(config, stage)
        where = slice(shard.first_layer, shard.last_layer)
        is_end = (stage == 0, stage == mapping.pp - 1)
        kinds = (config.mlp_types, config.attention_types, config.layer_ratios)
        key = (*(tuple(kind[where]) for kind in kinds), is_end)
        if key not in costs:
            costs[key] = pass_cost(config, cluster, workload, mapping, precision, stage=stage)
        stages.append(costs[key])

    alone, own = mapping.replace(overlap="none"), beside_traffic(engine, cluster, recipe)

    def at(end: str) -> list[PartTime]:
        found = []
        for cost in stages:
            paired = float(getattr(cost.step(mapping, own)[0], end))
            apart = float(getattr(cost.step(alone, own)[0], end))
            forward, weight = _shares(cost)
            found.append(
                PartTime(forward * apart, (1 - forward) * apart, weight * apart, together=paired / apart)
            )
        return found

    return at


def _shares(cost: PassCost) -> tuple[float, float]:
    """Shares of a pass that are forward, and gradients of weights."""
    counts = np.array([float(o.count) for o in cost.operations])
    spent = counts * np.asarray(cost.times.expected_s).reshape(len(counts), -1).sum(axis=1)
    names = cost.operations
    forward = sum(s for s, o in zip(spent, names, strict=True) if o.stage == "forward")
    weight = sum(s for s, o in zip(spent, names, strict=True) if o.name.endswith("grad weight"))
    return float(forward / spent.sum()), float(weight / spent.sum())
