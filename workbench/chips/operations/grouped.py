"""Grouped-query attention (GQA): the rivals' attention.

Source: arXiv 2305.13245; transformers' qwen2, qwen3_moe and llama.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.chips.operations.layer import Layer
from workbench.chips.operations.operation import Operation


def grouped_attention(layer: Layer) -> Iterator[Operation]:
    """The operations of one GQA layer, from the normed input to the output map.

    More ranks than key-value heads keep copies of them.
    """
    run, config, at = layer.run, layer.run.config, "self_attn"
    tp, t, c = run.shard.attention_tp, run.tokens, config.kv_head_dim
    heads = config.num_attention_heads // tp
    kv_tp = min(tp, config.num_key_value_heads)
    kv_heads = config.num_key_value_heads // kv_tp
    biases = tuple(name for name in (f"{at}.{p}_proj.bias" for p in "qkv") if layer.has(name))
    norms = tuple(name for name in (f"{at}.q_norm", f"{at}.k_norm") if layer.has(name))

    yield layer.gemm("q_proj", "attention in", (f"{at}.q_proj",), t, column=tp)
    yield layer.gemm("k_proj and v_proj", "attention in", (f"{at}.k_proj", f"{at}.v_proj"), t, column=kv_tp)
    rows = t * (heads + kv_heads) * c
    entry = run.entry_bytes / kv_tp
    yield layer.elementwise(
        "q and k, rotation, cache", "rotation", read=2 * rows + 2 * t * kv_heads * c, write=2 * t * heads * c,
        flop=6 * rows, tensors=(*biases, *norms), cache_write_bytes=t * entry,
    )  # fmt: skip
    queries = run.new / run.query_ranks
    keys = run.attended("full_attention") / queries
    yield layer.attention(
        "core", batch=run.sequences * kv_heads, m=queries * heads / kv_heads, keys=keys, k=c, k_value=c,
        weight="bf16", cache_read_bytes=run.sequences * run.visible / run.cache_ranks * entry,
        gather_bytes=t * keys * entry,
    )  # fmt: skip
    yield layer.gemm("o_proj", "o_proj", (f"{at}.o_proj",), t, row=tp)
