"""Where a model lies on a cluster: who shares heads, experts, layers, tokens, and what they send for it.

DP: groups of ranks with sequences of their own. TP: ranks that share one product. EP: experts spread over
ranks. PP: layers spread over ranks. CP: the tokens of a sequence, or its cache, spread over ranks.

Source: V4 report, sections 3.1 and 3.5; V3 report (arXiv 2412.19437), section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from workbench.accounting.kv_cache import FORMATS, entry_width, released_format
from workbench.chips.collectives import Seconds, collective_time, expert_time
from workbench.chips.topology import Topology
from workbench.chips.workload import Phase, Shard, Size, Workload
from workbench.config import ModelConfig

Overlap = Literal["none", "two batches", "waves"]
OVERLAPS: tuple[Overlap, ...] = ("none", "two batches", "waves")


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """Degrees of parallelism. A stage has dp × attention_tp × cp ranks; pp stages make a replica.

    attention_tp ranks share heads and the dense feed-forward; ep × moe_tp ranks share one set of experts
    (several sets where a stage has more ranks than that). `expert_imbalance` is the load of the busiest
    rank over the mean: 1 when forced, 1.2 to 2 in service; `routing_skew` the spread of the experts'
    popularity (see pass_cost), 0 when forced. `spare_experts` are copies of busy experts,
    counted for each rank. `overlap` says how expert traffic hides: not at all, behind the other of two
    half-batches, or expert by expert (waves).

    Raises:
        ValueError: a degree below 1, or experts that do not tile the stage.
    """

    dp: int = 1
    attention_tp: int = 1
    cp: int = 1
    pp: int = 1
    ep: int = 1
    moe_tp: int = 1
    overlap: Overlap = "none"
    expert_imbalance: float = 1.0
    routing_skew: float = 0.0
    spare_experts: int = 0
    expert_copies: Literal["per expert", "per node"] = "per expert"

    def __post_init__(self) -> None:
        for name in ("dp", "attention_tp", "cp", "pp", "ep", "moe_tp"):
            if getattr(self, name) < 1:
                raise ValueError(f"Mapping: {name} is {getattr(self, name)}; it counts ranks; use 1 or more")
        if self.stage_ranks % (self.ep * self.moe_tp):
            raise ValueError(
                f"Mapping: ep × moe_tp is {self.ep} × {self.moe_tp}; it must divide the "
                f"{self.stage_ranks} ranks of a stage (dp × attention_tp × cp); change ep, moe_tp or dp"
            )
        if self.overlap not in OVERLAPS:
            raise ValueError(f"Mapping: overlap {self.overlap!r} is unknown; choose one of {OVERLAPS}")
        if self.expert_imbalance < 1:
            raise ValueError(
                f"Mapping: expert_imbalance is {self.expert_imbalance}; the busiest rank has at least the "
                f"mean load; use 1 or more"
            )

    @property
    def stage_ranks(self) -> int:
        return self.dp * self.attention_tp * self.cp

    @property
    def ranks(self) -> int:
        """All ranks of one replica."""
        return self.stage_ranks * self.pp

    def has_expert_traffic(self, phase: Phase) -> bool:
        """Tokens travel to experts: ranks with different tokens share one set of experts.

        Context-parallel ranks hold different tokens in a prefill and in training, the same in decoding.
        """
        return self.ep > 1 and self.dp * (1 if phase == "decode" else self.cp) > 1

    def replace(self, **changes: Any) -> Mapping:
        """A copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def shard(self, config: ModelConfig, stage: int = 0) -> Shard:
        """What one rank of a pipeline stage holds; earlier stages take the layers that are left over.

        Raises:
            ValueError: more stages than layers, or a degree that does not divide what it cuts.
        """
        layers = config.num_hidden_layers
        if self.pp > layers:
            raise ValueError(
                f"Mapping: pp is {self.pp}; there are {layers} layers; use at most {layers} stages"
            )
        base, extra = divmod(layers, self.pp)
        first = stage * base + min(stage, extra)
        shard = Shard(
            attention_tp=self.attention_tp, moe_tp=self.moe_tp, ep=self.ep, cp=self.cp,
            vocab_tp=self.attention_tp, first_layer=first, last_layer=first + base + (stage < extra),
        )  # fmt: skip
        shard.check(config)
        return shard


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One kind of message in a pass: `count` of them, one after the other.

    is_expert_traffic: tokens on their way to experts or back, which an overlap may hide.
    """

    name: str
    layer_type: str
    count: Size
    payload_bytes: Size
    time: Seconds
    is_expert_traffic: bool = False
    stage: str = "forward"


def exchanges(
    config: ModelConfig,
    workload: Workload,
    mapping: Mapping,
    topology: Topology,
    *,
    dispatch_bytes: float = 1.0,
    scale_bytes: float = 4 / 128,
    stage: int = 0,
    direct: bool = True,
) -> list[Exchange]:
    """Everything one rank of a stage sends in a pass, in the order of a layer.

    A training pass sends each of these again backward. Gradients and pipeline bubbles belong to the
    training step, not to this list. `direct` lets all-reduces inside a node use an engine's own kernel.

    Shapes: sizes broadcast over the workload's arrays.
    """
    shard = mapping.shard(config, stage)
    forward = list(_forward(config, workload, mapping, shard, topology, dispatch_bytes, scale_bytes, direct))
    if workload.phase != "train":
        return forward
    return forward + [dataclasses.replace(e, stage="backward") for e in forward]


def _forward(
    config: ModelConfig,
    workload: Workload,
    mapping: Mapping,
    shard: Shard,
    topology: Topology,
    dispatch_bytes: float,
    scale_bytes: float,
    direct: bool,
) -> Iterator[Exchange]:
    run = workload.chunks()
    tokens = run.batch * run.tokens_computed / (mapping.cp if workload.phase != "decode" else 1)
    width = tokens * config.hidden_size * 2.0
    last = config.num_hidden_layers if shard.last_layer is None else shard.last_layer
    layers = last - shard.first_layer
    dense = _dense_layers(config, shard.first_layer, last)
    is_last = last == config.num_hidden_layers
    drafts = _draft_passes(config, workload) if is_last else 0.0
    tp = mapping.attention_tp

    # Ranks with the same tokens, each with a part of what becomes of them.
    sharing = tp * (mapping.cp if workload.phase == "decode" and mapping.ep * mapping.moe_tp > tp else 1)

    def reduce(name: str, layer_type: str, count: Size, ranks: int = tp) -> Exchange:
        time = collective_time("all_reduce", width, ranks, topology, direct=direct)
        return Exchange(name=name, layer_type=layer_type, count=count, payload_bytes=width, time=time)

    if tp > 1:
        yield reduce("attention output", "attention", layers + drafts)
    if mapping.cp > 1:
        yield _context_exchange(config, workload, mapping, topology, layers)
    moe = layers - dense + drafts
    if tp > 1 and dense:
        yield reduce("feed-forward output", "dense", dense)
    if moe and config.num_experts_per_tok:
        if mapping.has_expert_traffic(workload.phase):
            traffic = expert_time(
                tokens / tp, config.hidden_size, config.num_experts_per_tok, mapping.ep, topology,
                dispatch_bytes=dispatch_bytes, scale_bytes=scale_bytes, copies=mapping.expert_copies,
                node_limit=config.topk_group,
            )  # fmt: skip
            sent = tokens / tp * config.num_experts_per_tok * config.hidden_size
            # The busiest rank receives, and answers, more than the mean.
            uneven = mapping.expert_imbalance
            for name, time, size in (
                ("dispatch", traffic.dispatch, dispatch_bytes + scale_bytes),
                ("combine", traffic.combine, 2.0),
            ):
                yield Exchange(
                    name=name, layer_type="moe", count=moe, payload_bytes=sent * size,
                    time=time.times(uneven), is_expert_traffic=True,
                )  # fmt: skip
        elif mapping.dp > 1 and mapping.moe_tp > 1:
            together = width * mapping.moe_tp / tp
            for name, kind in (("gather tokens", "all_gather"), ("scatter sums", "reduce_scatter")):
                yield Exchange(
                    name=name, layer_type="moe", count=moe, payload_bytes=together,
                    time=collective_time(kind, together, mapping.moe_tp, topology),  # type: ignore[arg-type]
                    is_expert_traffic=True,
                )  # fmt: skip
        elif sharing > 1:
            yield reduce("experts' output", "moe", moe, sharing)
    if is_last and tp > 1 and workload.phase != "train":
        rows = run.batch * (1 if workload.phase == "prefill" else run.tokens_computed)
        logits = rows * config.vocab_size * 2.0
        yield Exchange(
            name="logits", layer_type="head", count=1 + drafts, payload_bytes=logits,
            time=collective_time("all_gather", logits, tp, topology),
        )  # fmt: skip
    if mapping.pp > 1:
        streams = (config.hc_mult or 1) * width / tp
        yield Exchange(
            name="to the next stage", layer_type="stage", count=1, payload_bytes=streams,
            time=collective_time("send", streams, mapping.ranks, topology),
        )  # fmt: skip


@lru_cache(maxsize=256)
def _dense_layers(config: ModelConfig, first: int, last: int) -> int:
    return config.mlp_types[first:last].count("dense")


def _draft_passes(config: ModelConfig, workload: Workload) -> float:
    """Passes of the MTP block: one over all tokens, and one for each further draft."""
    if not config.num_nextn_predict_layers:
        return 0.0
    if workload.phase == "train":
        return float(config.num_nextn_predict_layers)
    return float(workload.draft_tokens if workload.phase == "decode" else min(workload.draft_tokens, 1))


def _context_exchange(
    config: ModelConfig, workload: Workload, mapping: Mapping, topology: Topology, layers: int
) -> Exchange:
    """Context parallel: a prefill gathers the compressed entries of the others; decoding merges outputs."""
    run = workload.chunks()
    if workload.phase == "decode":
        rows = run.batch * run.tokens_computed * config.num_attention_heads / mapping.attention_tp
        size = rows * (config.kv_lora_rank or config.kv_head_dim) * 4.0
        time = collective_time("reduce_scatter", size, mapping.cp, topology)
        return Exchange(
            name="merge attention", layer_type="attention", count=layers, payload_bytes=size, time=time
        )
    fmt = FORMATS[workload.cache_format or released_format(config)]
    entry = fmt.entry.entry_bytes(*entry_width(config))
    share = sum(1 / ratio if ratio else 0.0 for ratio in config.layer_ratios) / config.num_hidden_layers
    size = run.batch * run.tokens_computed * entry * (share if config.compress_ratios else 1.0)
    time = collective_time("all_gather", size, mapping.cp, topology)
    return Exchange(
        name="gather entries", layer_type="attention", count=layers, payload_bytes=size, time=time
    )
