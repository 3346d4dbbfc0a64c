"""Multi-head latent attention (MLA) of V2 to V3.2 and Kimi K2, with V3.2's indexer.

While decoding, and always where attention is sparse, it runs absorbed: queries are carried into the latent
space and all heads share one key. A prefill without an indexer expands keys and values of every head, those
of the cached part of the prompt too; ranks that share a context expand all of it each.

Source: V2 report (arXiv 2405.04434), section 2.1; V3.2 report (arXiv 2512.02556), section 2.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.chips.operations.hybrid import score_and_choose
from workbench.chips.operations.layer import Layer, least
from workbench.chips.operations.operation import BYTES, Operation


def latent_attention(layer: Layer, kind: str) -> Iterator[Operation]:
    """The operations of one latent attention layer, from the normed input to the output map."""
    run, config = layer.run, layer.run.config
    assert config.q_lora_rank and config.kv_lora_rank and config.qk_rope_head_dim
    assert config.qk_nope_head_dim and config.v_head_dim
    tp, t, at = run.shard.attention_tp, run.tokens, "self_attn"
    heads, latent, rope = config.num_attention_heads // tp, config.kv_lora_rank, config.qk_rope_head_dim
    nope, value = config.qk_nope_head_dim, config.v_head_dim

    yield layer.gemm("q_a_proj", "attention in", (f"{at}.q_a_proj",), t)
    yield layer.gemm("kv_a_proj_with_mqa", "attention in", (f"{at}.kv_a_proj_with_mqa",), t)
    yield layer.norm("q_a_norm", "attention norms", config.q_lora_rank, (f"{at}.q_a_layernorm",))
    width = latent + rope
    yield layer.elementwise(
        "kv norm, rotation, cache", "attention norms",
        read=2 * t * width, write=2 * t * width, flop=6 * t * width, tensors=(f"{at}.kv_a_layernorm",),
        cache_write_bytes=t * run.entry_bytes,
    )  # fmt: skip
    yield layer.gemm("q_b_proj", "q_b_proj", (f"{at}.q_b_proj",), t, column=tp)
    rows = t * heads * rope
    yield layer.elementwise("q rotation", "q rotation", read=2 * rows, write=2 * rows, flop=4 * rows)
    if kind == "latent_sparse_attention":
        yield from _indexer(layer)

    queries = run.new / run.query_ranks
    if run.is_decode or kind == "latent_sparse_attention":
        kv_b = layer.weights[f"{at}.kv_b_proj"]
        share = nope / (nope + value)
        up = layer.gemm("q absorb", "q absorb", (f"{at}.kv_b_proj",), t, column=tp)
        yield _per_head(up, heads, t, latent, nope, kv_b.stored_bytes * share / tp)
        if kind == "latent_sparse_attention":
            assert config.index_topk
            keys = run.attended(kind) / queries
            distinct = least(run.visible, run.new * config.index_topk)
            batch, m = t, heads
        else:
            keys, distinct = run.attended(kind) / queries, run.visible
            batch, m = run.sequences, queries * heads
        yield layer.attention(
            "core", batch=batch, m=m, keys=keys, k=latent + rope, k_value=latent, weight="bf16",
            cache_read_bytes=run.sequences * distinct / run.cache_ranks * run.entry_bytes,
            gather_bytes=t * keys * run.entry_bytes,
        )  # fmt: skip
        down = layer.gemm("v absorb", "v absorb", (f"{at}.kv_b_proj",), t, column=tp)
        yield _per_head(down, heads, t, value, latent, kv_b.stored_bytes * (1 - share) / tp)
    else:
        # Keys and values of the cached part of a prompt are expanded again with every pass.
        expanded = run.sequences * run.visible
        yield layer.gemm(
            "kv_b_proj", "kv_b_proj", (f"{at}.kv_b_proj",), expanded, column=tp,
            cache_read_bytes=run.sequences * run.before * run.entry_bytes,
        )  # fmt: skip
        keys = run.attended(kind) / queries
        core = layer.attention(
            "core", batch=run.sequences * heads, m=queries, keys=keys, k=nope + rope, k_value=value,
            weight="bf16",
        )  # fmt: skip
        yield core.replace(read_bytes=core.read_bytes + 2 * expanded * (heads * (nope + value) + rope))
    yield layer.gemm("o_proj", "o_proj", (f"{at}.o_proj",), t, row=tp)


def _per_head(operation: Operation, heads: int, m: float, n: int, k: int, weight_bytes: float) -> Operation:
    """One half of kv_b_proj as a product a head."""
    size = BYTES[operation.activation]
    return operation.replace(
        batch=heads, m=m, n=n, k=k, flop=2 * heads * m * n * k, weight_bytes=weight_bytes,
        read_bytes=size * heads * m * k, write_bytes=2 * heads * m * n,
    )  # fmt: skip


def _indexer(layer: Layer) -> Iterator[Operation]:
    run, config, at = layer.run, layer.run.config, "self_attn.indexer"
    assert config.index_n_heads and config.index_head_dim
    t = run.tokens
    yield layer.gemm("indexer q_b_proj", "indexer in", (f"{at}.wq_b",), t)
    yield layer.gemm("indexer wk", "indexer in", (f"{at}.wk",), t)
    yield layer.gemm("indexer weights_proj", "indexer in", (f"{at}.weights_proj",), t, output="fp32")
    rows = t * config.index_n_heads * config.index_head_dim
    yield layer.elementwise(
        "index q and k, rotation", "indexer q", read=2 * rows, write=rows, flop=6 * rows,
        tensors=(f"{at}.k_norm.weight", f"{at}.k_norm.bias"), cache_write_bytes=t * run.index_key_bytes,
    )  # fmt: skip
    index_format = "fp8" if run.cache_format != "bf16" else "bf16"
    yield from score_and_choose(layer, run.all_keys(), run.visible / run.cache_ranks, index_format)
