"""A model and a workload as a list of operations: what one rank computes and moves in one pass."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.chips.operations.feed_forward import feed_forward
from workbench.chips.operations.grouped import grouped_attention
from workbench.chips.operations.hybrid import hybrid_attention
from workbench.chips.operations.latent import latent_attention
from workbench.chips.operations.layer import Layer, Pass, layer_plan, trained, weights_of
from workbench.chips.operations.operation import PRODUCTS, Operation
from workbench.chips.operations.residual import embedding, enter, head, leave, mtp_join
from workbench.chips.operations.training import backward, recomputed
from workbench.chips.workload import Shard, Workload
from workbench.config import SWA, ModelConfig

__all__ = ["PRODUCTS", "Operation", "operations"]

_WHOLE = Shard()


def operations(config: ModelConfig, workload: Workload, shard: Shard = _WHOLE) -> list[Operation]:
    """All operations of one pass on one rank, in order; equal layers are one entry with a `count`.

    No collective is among them: what ranks exchange depends on the mapping. Decoding with drafts adds
    the MTP block's passes: one over the checked tokens, then one token a sequence for each further draft.
    A prefill runs the block only if draft_tokens says that it will be needed. Training has all MTP
    blocks, then recomputation and the backward pass; experts released in FP4 are trained in FP8.

    Shapes: all sizes broadcast over the workload's arrays.
    Raises:
        ValueError: a shard that does not divide the model, or drafts without an MTP block.
    """
    shard.check(config)
    if workload.draft_tokens and not config.num_nextn_predict_layers:
        raise ValueError(
            f"operations: draft_tokens is {workload.draft_tokens} and num_nextn_predict_layers is 0; "
            f"drafting needs a multi-token-prediction block; set draft_tokens=0 or take another configuration"
        )
    workload = workload.chunks()
    if workload.phase == "train":
        config = trained(config)
    run = Pass.of(config, workload, shard)
    forward = list(_trunk(run))
    last = config.num_hidden_layers if shard.last_layer is None else shard.last_layer
    if last == config.num_hidden_layers:
        forward += _drafts(run, workload)
    if workload.phase != "train":
        return forward
    return [*forward, *recomputed(forward, workload.recompute), *backward(forward)]


def _trunk(run: Pass) -> Iterator[Operation]:
    config, shard = run.config, run.shard
    last = config.num_hidden_layers if shard.last_layer is None else shard.last_layer
    table = weights_of(config)
    outside = Layer(run, table["trunk", None], "head", 1)
    if shard.first_layer == 0:
        yield embedding(Layer(run, table["trunk", None], "embedding", 1))
    attention, mlp = layer_plan(config, shard.first_layer, last)
    for kind, ratio, count, index in attention:
        yield from _attention(Layer(run, table["trunk", index], kind, count), kind, ratio)
    for kind, _, count, index in mlp:
        yield from _mlp(Layer(run, table["trunk", index], kind, count), kind)
    if last == config.num_hidden_layers:
        rows = run.sequences if run.logits == "last" else run.tokens
        yield from head(outside, rows, _lm_head(config))


def _attention(layer: Layer, kind: str, ratio: int) -> Iterator[Operation]:
    yield from enter(layer, "attn_hc", "input_layernorm")
    if layer.run.config.model_type == "deepseek_v4":
        yield from hybrid_attention(layer, kind, ratio)
    elif layer.run.config.kv_lora_rank is not None:
        yield from latent_attention(layer, kind)
    else:
        yield from grouped_attention(layer)
    yield from leave(layer, "attn_hc")


def _mlp(layer: Layer, kind: str) -> Iterator[Operation]:
    yield from enter(layer, "ffn_hc", "post_attention_layernorm")
    yield from feed_forward(layer, kind)
    yield from leave(layer, "ffn_hc")


def _lm_head(config: ModelConfig) -> str:
    return "embed_tokens" if config.tie_word_embeddings else "lm_head"


def _drafts(run: Pass, workload: Workload) -> Iterator[Operation]:
    """The passes of the MTP block(s)."""
    blocks = run.config.num_nextn_predict_layers
    if workload.phase == "train":
        for block in range(blocks):
            yield from _mtp(run, block, 1, run.tokens)
    elif workload.draft_tokens:
        yield from _mtp(run, 0, 1, run.sequences)
        if workload.phase == "decode" and workload.draft_tokens > 1:
            one = Pass(
                run.config, run.shard, run.sequences, 1.0, run.visible - 1, True, run.cache_format,
                logits="all", cache_ranks=run.cache_ranks,
            )  # fmt: skip
            yield from _mtp(one, 0, workload.draft_tokens - 1, one.tokens)


def _mtp(run: Pass, block: int, count: int, rows: float) -> Iterator[Operation]:
    config, table = run.config, weights_of(run.config)
    weights = table["mtp", block]
    # The output head is the trunk's.
    weights = {**weights, _lm_head(config): table["trunk", None][_lm_head(config)]}
    kind = SWA if config.model_type == "deepseek_v4" else config.attention_types[-1]
    yield embedding(Layer(run, weights, "embedding", count, "mtp"))
    yield from mtp_join(Layer(run, weights, "mtp join", count, "mtp"))
    yield from _attention(Layer(run, weights, kind, count, "mtp"), kind, 0)
    yield from _mlp(Layer(run, weights, "moe", count, "mtp"), "moe")
    yield from head(Layer(run, weights, "head", count, "mtp"), rows, _lm_head(config))
