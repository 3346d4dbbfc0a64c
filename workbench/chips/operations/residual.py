"""Around attention and feed-forward: norms and residual streams, embedding, head, and the MTP join.

mHC: manifold-constrained hyper-connections (report, section 2.2). MTP: multi-token prediction.
Symbols: n residual streams, d hidden_size, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.chips.operations.layer import Layer
from workbench.chips.operations.operation import Operation
from workbench.chips.workload import Size


def enter(layer: Layer, site: str, norm: str) -> Iterator[Operation]:
    """From the residual stream(s) to the normed input of a module."""
    config, t = layer.run.config, layer.run.tokens
    n, d = config.hc_mult, config.hidden_size
    if n:
        # The reader of the streams computes 2n + n² weights and the collapsed vector in one go.
        yield layer.gemm(f"{site} weights", f"{site} pre", (f"{site}.fn",), t, output="fp32")
        sinkhorn = (config.hc_sinkhorn_iters or 0) * 4 * n * n
        yield layer.elementwise(
            f"{site} collapse", f"{site} pre", read=2 * t * n * d, write=2 * t * d,
            flop=t * (4 * n * d + sinkhorn), tensors=(f"{site}.base", f"{site}.scale"),
        )  # fmt: skip
    yield layer.norm(norm, norm if not n else f"{site} pre", d, (norm,))


def leave(layer: Layer, site: str) -> Iterator[Operation]:
    """From a module's output back to the residual stream(s)."""
    config, t = layer.run.config, layer.run.tokens
    n, d = config.hc_mult or 1, config.hidden_size
    flop = 2 * n * (n + 1) * d if config.hc_mult else d
    yield layer.elementwise(
        f"{site} expand" if config.hc_mult else "residual add", f"{site} post",
        read=2 * t * (n + 1) * d, write=2 * t * n * d, flop=t * flop,
    )  # fmt: skip


def embedding(layer: Layer) -> Operation:
    """One row of the table a token, copied to every stream."""
    config, t = layer.run.config, layer.run.tokens
    row = 2 * config.hidden_size
    return layer.elementwise(
        "embedding", "embedding", read=t * row / layer.run.shard.vocab_tp,
        write=t * row * (config.hc_mult or 1), flop=0.0, kind="gather",
    )  # fmt: skip


def head(layer: Layer, rows: Size, lm_head: str, norm: str = "norm") -> Iterator[Operation]:
    """Collapse, norm and output projection of `rows` positions."""
    config = layer.run.config
    n, d = config.hc_mult, config.hidden_size
    if n:
        yield layer.gemm("hc_head weights", "head norm", ("hc_head.hc_fn",), rows, output="fp32")
        yield layer.elementwise(
            "hc_head collapse", "head norm", read=2 * rows * n * d, write=2 * rows * d, flop=4 * rows * n * d,
            tensors=("hc_head.hc_base", "hc_head.hc_scale"),
        )  # fmt: skip
    yield layer.elementwise(
        "final norm", "head norm", read=2 * rows * d, write=2 * rows * d, flop=4 * rows * d, tensors=(norm,)
    )
    yield layer.gemm("lm_head", "lm_head", (lm_head,), rows, column=layer.run.shard.vocab_tp)


def mtp_join(layer: Layer) -> Iterator[Operation]:
    """The token's streams and the next token's embedding become the input of an MTP block."""
    config, t = layer.run.config, layer.run.tokens
    n, d = config.hc_mult or 1, config.hidden_size
    yield layer.norm("enorm", "mtp norms", d, ("enorm",))
    many = layer.norm("hnorm", "mtp norms", n * d, ("hnorm",))
    yield many
    if layer.has("eh_proj"):
        yield layer.gemm("eh_proj", "mtp join", ("eh_proj",), t)
        return
    yield layer.gemm("e_proj", "mtp join", ("e_proj",), t)
    yield layer.gemm("h_proj", "mtp join", ("h_proj",), t * n)  # one row a stream
