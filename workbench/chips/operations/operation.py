"""One operation of a pass: its shape, formats, arithmetic and bytes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from workbench.chips.workload import Size

Kind = Literal["gemm", "grouped_gemm", "attention", "index_scores", "topk", "elementwise", "gather"]
Stage = Literal["forward", "recompute", "backward"]
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5, "int4": 0.5}
PRODUCTS = ("gemm", "grouped_gemm", "attention", "index_scores")


# Not frozen: a prediction makes some 70 of them, and freezing took a tenth of its time. Nothing may set a
# field, for lists of operations are kept and handed out again; `replace` makes a copy.
@dataclass(kw_only=True, slots=True)
class Operation:
    """One operation as one rank runs it; `count` equal ones make up the pass.

    Products: `batch` independent products of (m, k) by (k, n). A grouped product has one for each expert
        that is visited, m rows each on average. Attention has one for each set of keys: m query rows
        (queries × the heads that share the keys) against n keys (the mean over queries, causal) of k
        channels, then m × n probabilities against values of k_value channels. Where every query has keys of
        its own (sparse attention), m is the number of heads.
    FLOPs: `flop` in products, two for a multiply-add; `vector_flop` elsewhere, roughly.
    Bytes: each is moved once between main memory and the chip, if the operation is not fused with its
        neighbours: weights (with scales), activations in and out, cache in and out. `gather_bytes` are the
        cache bytes fetched row by row, repeats counted: an upper bound of what passes the last cache level.
    weight and activation: formats as the release stores them; the product runs in what
        `Chip.arithmetic(weight, activation)` says. Attention keeps its "weight", the cache, in `weight`.
    group: operations of one group that follow one another run as one kernel where an engine fuses.
    tensors: names of the weights it reads, as in accounting.tensors, relative to the layer.
    All sizes, FLOPs and bytes may be numpy arrays that broadcast.
    """

    name: str
    kind: Kind
    layer_type: str
    group: str
    count: Size = 1
    part: str = "trunk"
    stage: Stage = "forward"
    batch: Size = 1
    m: Size = 0
    n: Size = 0
    k: Size = 0
    k_value: Size = 0
    activation: str = "bf16"
    weight: str | None = None
    output: str = "bf16"
    flop: Size = 0.0
    vector_flop: Size = 0.0
    weight_bytes: Size = 0.0
    read_bytes: Size = 0.0
    write_bytes: Size = 0.0
    cache_read_bytes: Size = 0.0
    cache_write_bytes: Size = 0.0
    gather_bytes: Size = 0.0
    tensors: tuple[str, ...] = ()

    @property
    def moved_bytes(self) -> Size:
        """All bytes between main memory and the chip, for one of `count`."""
        return (
            self.weight_bytes
            + self.read_bytes
            + self.write_bytes
            + self.cache_read_bytes
            + self.cache_write_bytes
        )

    @property
    def is_product(self) -> bool:
        return self.kind in PRODUCTS

    def replace(self, **changes: Any) -> Operation:
        return dataclasses.replace(self, **changes)
