"""V4's attention: window, compressed entries, indexer, and the two output maps.

Report: section 2.3, eqs. 9-27. CSA is compressed sparse attention, HCA heavily compressed attention.
Symbols: h heads, c head_dim, m tokens per compressed entry, T new tokens, S sequences.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.chips.operations.layer import Layer, least, log2
from workbench.chips.operations.operation import BYTES, Operation
from workbench.chips.workload import Size
from workbench.config import CSA, SWA


def hybrid_attention(layer: Layer, kind: str, ratio: int) -> Iterator[Operation]:
    """The operations of one V4 attention layer, from the normed input to the output map."""
    run, config = layer.run, layer.run.config
    assert config.o_groups and config.o_lora_rank and config.sliding_window and config.q_lora_rank
    tp, t = run.shard.attention_tp, run.tokens
    heads, c = config.num_attention_heads // tp, config.kv_head_dim
    at = "self_attn"

    yield layer.gemm("q_a_proj", "attention in", (f"{at}.q_a_proj",), t)
    yield layer.gemm("kv_proj", "attention in", (f"{at}.kv_proj",), t)
    yield layer.norm("q_a_norm", "attention norms", config.q_lora_rank, (f"{at}.q_a_norm",))
    yield layer.elementwise(
        "kv norm, rotation, cache", "attention norms",
        read=2 * t * c, write=0.0, flop=8 * t * c, tensors=(f"{at}.kv_norm",),
        cache_write_bytes=t * run.entry_bytes,
    )  # fmt: skip
    yield layer.gemm("q_b_proj", "q_b_proj", (f"{at}.q_b_proj",), t, column=tp)
    rows = t * heads * c
    yield layer.elementwise("q norm, rotation", "q norm", read=2 * rows, write=2 * rows, flop=8 * rows)
    if kind != SWA:
        yield from _compressor(layer, f"{at}.compressor", "compressor", ratio, c, run.entry_bytes)
    if kind == CSA:
        yield from _indexer(layer, f"{at}.compressor.indexer", ratio)
    yield _core(layer, kind, ratio, heads)
    yield layer.elementwise("output rotation", "core", read=2 * rows, write=rows, flop=4 * rows)
    yield layer.gemm("o_a_proj", "o_a_proj", (f"{at}.o_a_proj",), t, column=tp, batch=config.o_groups)
    yield layer.gemm("o_b_proj", "o_b_proj", (f"{at}.o_b_proj",), t, row=tp)


def _compressor(
    layer: Layer, at: str, name: str, ratio: int, width: int, entry_bytes: float
) -> Iterator[Operation]:
    """Keys and gates of every token; every `ratio` tokens they are pooled into one entry."""
    t = layer.run.tokens
    # CSA's windows overlap: two series of channels, and an entry pools two windows.
    numbers = 2 * t * layer.weights[f"{at}.kv_proj"].rows
    series = layer.weights[f"{at}.kv_proj"].rows // width
    yield layer.gemm(
        f"{name} kv and gate", f"{name} in", (f"{at}.kv_proj", f"{at}.gate_proj"), t, output="fp32"
    )
    yield layer.elementwise(
        f"{name} pooling", f"{name} pool", read=4 * numbers * series, write=4 * numbers,
        flop=6 * numbers * series, tensors=(f"{at}.position_bias", f"{at}.kv_norm"),
        cache_write_bytes=t / ratio * entry_bytes,
    )  # fmt: skip


def _indexer(layer: Layer, at: str, ratio: int) -> Iterator[Operation]:
    """Scores of every visible entry for every query, and the choice of the best."""
    run, config = layer.run, layer.run.config
    assert config.index_n_heads and config.index_head_dim and config.index_topk
    t, heads, width = run.tokens, config.index_n_heads, config.index_head_dim
    yield layer.gemm("indexer q_b_proj", "indexer in", (f"{at}.q_b_proj",), t)
    yield layer.gemm("indexer weights_proj", "indexer in", (f"{at}.scorer.weights_proj",), t, output="fp32")
    rows = t * heads * width
    yield layer.elementwise("index q rotation", "indexer q", read=2 * rows, write=rows / 2, flop=6 * rows)
    yield from _compressor(layer, at, "indexer compressor", ratio, width, run.index_key_bytes)
    seen = run.seen_entries(ratio)
    distinct = (run.visible // ratio) / run.cache_ranks
    index_format = "fp4" if run.cache_format != "bf16" else "bf16"
    yield from score_and_choose(layer, seen, distinct, index_format)


def score_and_choose(layer: Layer, seen: Size, distinct: Size, index_format: str) -> Iterator[Operation]:
    """Index scores against `seen` keys (over the queries of a sequence, `distinct` of them), then top-k."""
    run, config = layer.run, layer.run.config
    assert config.index_n_heads and config.index_head_dim and config.index_topk
    queries = run.new / run.query_ranks
    scores = run.sequences * seen
    yield Operation(
        name="index scores", kind="index_scores", layer_type=layer.layer_type, group="index",
        count=layer.count, part=layer.part, batch=run.sequences, m=queries * config.index_n_heads,
        n=seen / queries, k=config.index_head_dim,
        activation=index_format, weight=index_format, output="fp32",
        flop=2 * scores * config.index_n_heads * config.index_head_dim,
        vector_flop=3 * scores * config.index_n_heads,
        read_bytes=run.tokens * config.index_n_heads * config.index_head_dim * BYTES[index_format],
        write_bytes=4 * scores, cache_read_bytes=run.sequences * distinct * run.index_key_bytes,
    )  # fmt: skip
    yield layer.elementwise(
        "top-k", "index", read=4 * scores, write=4 * run.tokens * config.index_topk,
        flop=scores * log2(config.index_topk), kind="topk", m=run.tokens, n=seen / queries,
        k=config.index_topk,
    )  # fmt: skip


def _core(layer: Layer, kind: str, ratio: int, heads: int) -> Operation:
    """Window, entries and sink in one softmax; key and value are one vector of c channels."""
    run, config = layer.run, layer.run.config
    assert config.sliding_window
    queries, c = run.new / run.query_ranks, config.kv_head_dim
    keys = run.attended(kind, ratio) / queries
    # Distinct entries of a sequence: the window of all its queries, and the entries that they see.
    window = least(run.visible, config.sliding_window + run.new - 1)
    entries: Size = 0.0
    if kind != SWA:
        entries = run.visible // ratio
    if kind == CSA:
        assert config.index_topk
        entries = least(entries, run.new * config.index_topk)
    more = {
        "cache_read_bytes": run.sequences * (window + entries) / run.cache_ranks * run.entry_bytes,
        "gather_bytes": run.tokens * keys * run.entry_bytes,
        "weight": "bf16",
        "tensors": ("self_attn.sinks",),
        "weight_bytes": layer.weights["self_attn.sinks"].stored_bytes,
    }
    if kind == CSA:  # every query has keys of its own
        return layer.attention("core", batch=run.tokens, m=heads, keys=keys, k=c, k_value=c, **more)
    return layer.attention("core", batch=run.sequences, m=queries * heads, keys=keys, k=c, k_value=c, **more)
