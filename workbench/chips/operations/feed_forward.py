"""The feed-forward part of a layer: dense, or routed experts with a shared one.

Report: section 2.1. Axes: T tokens of this rank; e experts, k of them chosen by each token.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.accounting.routing import experts_touched
from workbench.chips.operations.layer import ACTIVATION, Layer, log2
from workbench.chips.operations.operation import BYTES, Operation


def feed_forward(layer: Layer, kind: str) -> Iterator[Operation]:
    """The operations of one feed-forward module, from the normed input on."""
    if kind == "dense":
        assert layer.run.config.intermediate_size
        yield from _swiglu(layer, "mlp", "mlp", layer.run.config.intermediate_size)
        return
    yield from _router(layer, kind)
    yield from _experts(layer)
    config = layer.run.config
    if config.n_shared_experts:
        assert config.moe_intermediate_size
        width = config.n_shared_experts * config.moe_intermediate_size
        yield from _swiglu(layer, "mlp.shared_experts", "shared", width)


def _swiglu(layer: Layer, at: str, name: str, width: int) -> Iterator[Operation]:
    t, tp = layer.run.tokens, layer.run.shard.attention_tp
    yield layer.gemm(f"{name} gate_up", f"{name} up", (f"{at}.gate_proj", f"{at}.up_proj"), t, column=tp)
    yield _activation(layer, name, t * width / tp)
    yield layer.gemm(f"{name} down", f"{name} down", (f"{at}.down_proj",), t, row=tp)


def _activation(layer: Layer, name: str, numbers: float) -> Operation:
    """silu(gate) · up, rounded for the product that follows."""
    size = 1 if layer.run.config.quantization_config else 2
    return layer.elementwise(
        f"{name} swiglu", f"{name} up", read=4 * numbers, write=size * numbers, flop=8 * numbers
    )


def _router(layer: Layer, kind: str) -> Iterator[Operation]:
    config, t = layer.run.config, layer.run.tokens
    assert config.n_routed_experts and config.num_experts_per_tok
    yield layer.gemm("router", "router", ("mlp.gate",), t, output="fp32")
    scores = t * config.n_routed_experts
    chosen = t * config.num_experts_per_tok
    if kind == "hash_moe":
        # The table says which experts; what each counts is still a score.
        yield layer.elementwise(
            "hash lookup", "router", read=4 * scores + 8 * chosen, write=8 * chosen, flop=6 * scores,
            kind="gather",
        )  # fmt: skip
        return
    yield layer.elementwise(
        "expert choice", "router", read=4 * scores, write=8 * chosen,
        flop=(6 + log2(config.num_experts_per_tok)) * scores, kind="topk",
        m=t, n=config.n_routed_experts, k=config.num_experts_per_tok,
    )  # fmt: skip


def _experts(layer: Layer) -> Iterator[Operation]:
    """Grouped products over the experts of this rank that at least one token visits."""
    run, config = layer.run, layer.run.config
    shard, d = run.shard, config.hidden_size
    assert config.n_routed_experts and config.num_experts_per_tok and config.moe_intermediate_size
    width = config.moe_intermediate_size // shard.moe_tp
    together = run.tokens * shard.batches_at_experts
    rows = together * config.num_experts_per_tok / shard.ep
    touched = experts_touched(together, config.n_routed_experts, config.num_experts_per_tok) / shard.ep

    gate = layer.weights["mlp.experts.gate_proj"]
    activation = ACTIVATION[gate.stored]
    size = BYTES[activation]

    def grouped(name: str, tensors: tuple[str, ...], n: int, k: int) -> Operation:
        each = layer.beside(tensors)[3] / gate.copies
        return Operation(
            name=name, kind="grouped_gemm", layer_type=layer.layer_type, group=name, count=layer.count,
            part=layer.part, batch=touched, m=rows / touched, n=n, k=k, activation=activation,
            weight=gate.stored,
            flop=2 * rows * n * k, read_bytes=rows * k * size, write_bytes=2 * rows * n,
            weight_bytes=each / shard.moe_tp * touched,
            tensors=tensors,
        )  # fmt: skip

    yield layer.elementwise(
        "dispatch", "dispatch", read=rows * d * size, write=rows * d * size, flop=0.0, kind="gather"
    )
    yield grouped("experts gate_up", ("mlp.experts.gate_proj", "mlp.experts.up_proj"), 2 * width, d)
    yield _activation(layer, "experts", rows * width)
    yield grouped("experts down", ("mlp.experts.down_proj",), d, width)
    chosen = run.tokens * config.num_experts_per_tok
    yield layer.elementwise(
        "combine", "combine", read=2 * chosen * d, write=2 * run.tokens * d, flop=2 * chosen * d,
        kind="gather",
    )  # fmt: skip
