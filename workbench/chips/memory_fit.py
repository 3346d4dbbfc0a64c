"""What lies in the memory of the fullest rank, tensor by tensor, and whether it fits.

Rows: weights by kind of tensor, the cache of the sequences, activations of the widest pass, and what the
engine keeps for itself. A model that does not fit is an error that names the largest of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench.accounting.kv_cache import kv_cache_bytes
from workbench.accounting.tensors import Tensor, tensors
from workbench.chips.mapping import Mapping
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.workload import Size, Workload
from workbench.config import ModelConfig
from workbench.units import gib

# Cut over the ranks that share a product; everything else of a layer is held whole.
_CUT_BY_HEADS = ("q_b_proj", "o_a_proj", "o_proj", "o_b_proj", "kv_b_proj", "q_proj", "k_proj", "v_proj")
_CUT_BY_WIDTH = ("dense mlp", "shared experts")
_CUT_BY_VOCABULARY = ("embed_tokens", "lm_head")
# Bytes a trained parameter: BF16 weight and gradient; FP32 master copy, BF16 moments (V3 report, 3.3.1).
TRAINING_BYTES = {"gradient": 2.0, "master weight": 4.0, "moments": 4.0}


@dataclass(frozen=True)
class MemoryRow:
    """`size_bytes` of one rank's memory. kind: weights, cache, activations, training or engine."""

    name: str
    kind: str
    size_bytes: Size


def weight_rows(
    config: ModelConfig, mapping: Mapping, precision: Precision = RELEASED, *, with_mtp: bool = True
) -> list[MemoryRow]:
    """Weights of the fullest stage, one row a kind of tensor, largest first."""
    return list(_weight_rows(config, mapping, precision, with_mtp))


@lru_cache(maxsize=1024)
def _weight_rows(
    config: ModelConfig, mapping: Mapping, precision: Precision, with_mtp: bool
) -> tuple[MemoryRow, ...]:
    stages = []
    for stage in range(mapping.pp):
        shard = mapping.shard(config, stage)
        last = config.num_hidden_layers if shard.last_layer is None else shard.last_layer
        rows: dict[str, float] = defaultdict(float)
        for tensor in tensors(config):
            if tensor.part == "mtp":
                is_here = with_mtp and last == config.num_hidden_layers
            elif tensor.layer is None:
                is_first = tensor.kind == "embed_tokens"
                is_here = shard.first_layer == 0 if is_first else last == config.num_hidden_layers
            else:
                is_here = shard.first_layer <= tensor.layer < last
            if is_here:
                rows[tensor.kind] += precision.weight_bytes(tensor) / _ways(tensor, mapping)
        if mapping.spare_experts and config.n_routed_experts:
            held = config.n_routed_experts / mapping.ep
            rows["experts"] *= 1 + mapping.spare_experts / held
        stages.append(rows)
    fullest = max(stages, key=lambda rows: sum(rows.values()))
    return tuple(
        MemoryRow(kind, "weights", size) for kind, size in sorted(fullest.items(), key=lambda row: -row[1])
    )


def _ways(tensor: Tensor, mapping: Mapping) -> int:
    """Ranks over which one tensor is cut."""
    if tensor.kind == "experts":
        return mapping.ep * mapping.moe_tp
    if tensor.kind in _CUT_BY_HEADS + _CUT_BY_WIDTH + _CUT_BY_VOCABULARY:
        return mapping.attention_tp
    return 1


def cache_bytes_per_sequence(
    config: ModelConfig, workload: Workload, precision: Precision = RELEASED
) -> Size:
    """Cache of one sequence at the end of the pass, its MTP blocks and compressor buffers included."""
    end = np.asarray(workload.tokens_before + workload.tokens_computed)
    per_sequence = kv_cache_bytes(
        config, end, cache_format=workload.cache_format or precision.cache_format, state="windows and buffers"
    ).astype(np.float64)
    if workload.draft_tokens:
        # The MTP block caches like one more layer.
        per_sequence = per_sequence * (1 + config.num_nextn_predict_layers / config.num_hidden_layers)
    return per_sequence if per_sequence.ndim else float(per_sequence)


def memory_rows(
    config: ModelConfig,
    workload: Workload,
    mapping: Mapping,
    precision: Precision = RELEASED,
    *,
    engine_bytes: float = 0.0,
    in_flight: float = 1.0,
) -> list[MemoryRow]:
    """All rows of the fullest rank.

    Latent and shared entries have one head: TP ranks each hold the whole cache; grouped-query heads are
    cut with them. A training pass keeps what the backward pass needs (`Workload.recompute`) for
    `in_flight` micro-batches, gradients, and optimiser states cut over all data-parallel ranks.

    Shapes: sizes broadcast over the workload's arrays.
    """
    rows = weight_rows(
        config, mapping, precision, with_mtp=bool(workload.draft_tokens) or workload.phase == "train"
    )
    run = workload.chunks()
    tokens = run.batch * run.tokens_computed / (mapping.cp if workload.phase != "decode" else 1)
    if workload.phase == "train":
        rows += _training_rows(config, workload, mapping, tokens, in_flight)
    else:
        heads_cut = (
            min(mapping.attention_tp, config.num_key_value_heads) if config.kv_lora_rank is None else 1
        )
        if config.model_type == "deepseek_v4":
            heads_cut = 1
        ways = heads_cut * mapping.pp * mapping.cp
        cache = workload.batch * cache_bytes_per_sequence(config, workload, precision) / ways
        rows.append(MemoryRow("key-value cache", "cache", cache))
        # Residual streams twice, the widest feed-forward in BF16, and tokens gathered for experts.
        streams = 2.0 * (config.hc_mult or 1) * tokens * config.hidden_size * 2
        topk = config.num_experts_per_tok or 1
        inner = (config.moe_intermediate_size or config.intermediate_size or 0) / mapping.moe_tp
        gathered = tokens * topk * mapping.expert_imbalance * (2 * config.hidden_size + 4 * inner)
        rows.append(MemoryRow("activations", "activations", streams + gathered))
    if engine_bytes:
        rows.append(MemoryRow("engine (graphs, buffers, fragments)", "engine", engine_bytes))
    return rows


def _training_rows(
    config: ModelConfig, workload: Workload, mapping: Mapping, tokens: Size, in_flight: float
) -> list[MemoryRow]:
    weights = sum(t.parameters / _ways(t, mapping) / mapping.pp for t in tensors(config) if not t.is_buffer)
    replicas = mapping.stage_ranks / mapping.attention_tp
    d = config.hidden_size * (config.hc_mult or 1)
    inner = (config.num_experts_per_tok or 1) * (
        config.moe_intermediate_size or config.intermediate_size or 0
    )
    kept = {"none": 16 * d + 8 * inner, "elementwise": 8 * d + 4 * inner, "full": 2 * d}[workload.recompute]
    layers = config.num_hidden_layers / mapping.pp
    return [
        MemoryRow("gradients", "training", TRAINING_BYTES["gradient"] * weights),
        MemoryRow("master weights", "training", TRAINING_BYTES["master weight"] * weights / replicas),
        MemoryRow("moments", "training", TRAINING_BYTES["moments"] * weights / replicas),
        MemoryRow("activations", "activations", tokens * kept * layers * in_flight / mapping.attention_tp),
    ]


def total_bytes(rows: list[MemoryRow]) -> Size:
    """The sum of all rows."""
    return sum(row.size_bytes for row in rows)


def check_fit(rows: list[MemoryRow], memory_bytes: float, where: str = "chip") -> None:
    """Accept rows that fit into `memory_bytes`.

    Raises:
        ValueError: they do not; the message names the largest tensor and how much is over.
    """
    total = float(np.max(total_bytes(rows)))
    if total <= memory_bytes:
        return
    sizes = sorted(((float(np.max(row.size_bytes)), row.name) for row in rows), reverse=True)
    largest = ", ".join(f"{name} {gib(size):.1f}" for size, name in sizes[:3])
    raise ValueError(
        f"check_fit: {gib(total):.1f} GiB do not fit into the {gib(memory_bytes):.1f} GiB of {where}, "
        f"{gib(total - memory_bytes):.1f} GiB over; the largest are, in GiB: {largest}; spread "
        f"{sizes[0][1]} over more ranks, store it in fewer bits, or lower the batch"
    )


def largest_batch(
    config: ModelConfig,
    workload: Workload,
    mapping: Mapping,
    memory_bytes: float,
    precision: Precision = RELEASED,
    *,
    engine_bytes: float = 0.0,
) -> int:
    """Most sequences of one attention group that fit beside the weights; 0 if not even one does."""
    one = workload.replace(batch=1)
    rows = memory_rows(config, one, mapping, precision, engine_bytes=engine_bytes)
    fixed = sum(row.size_bytes for row in rows if row.kind in ("weights", "engine"))
    each = sum(row.size_bytes for row in rows if row.kind not in ("weights", "engine"))
    return max(int((memory_bytes - float(fixed)) // float(np.max(each))), 0)
