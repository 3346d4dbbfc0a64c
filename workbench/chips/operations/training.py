"""The backward pass as operations, made from the forward ones.

A product Y = X Wᵀ takes two more of its size: the gradient of its input and that of its weight. The choice
of entries passes no gradient, so an indexer runs forward only; the separate loss that trains it is left out.
Optimiser steps and what ranks exchange are not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from workbench.chips.operations.operation import BYTES, Operation

NO_GRADIENT = ("index", "indexer")


def recomputed(operations: Iterable[Operation], policy: str) -> Iterator[Operation]:
    """Forward operations that the backward pass runs again under a policy of Workload.recompute."""
    for operation in operations:
        if policy == "full" or (policy == "elementwise" and operation.kind == "elementwise"):
            yield operation.replace(stage="recompute")


def backward(operations: Iterable[Operation]) -> Iterator[Operation]:
    """The backward pass of a list of forward operations, in reverse order.

    A product gives two: "… grad input" (m, n) by (n, k), and "… grad weight" (k, m) by (m, n), whose long
    axis is the tokens and whose result is FP32. Attention computes its scores again and four more
    products. Elementwise work reads and writes about twice as much as forward. Gradients are BF16.
    """
    for f in reversed(list(operations)):
        if f.name.startswith(NO_GRADIENT) or f.kind in ("topk", "index_scores"):
            continue
        if f.kind in ("gemm", "grouped_gemm"):
            yield f.replace(
                name=f"{f.name} grad input", stage="backward", n=f.k, k=f.n, output="bf16",
                read_bytes=f.batch * f.m * f.n * BYTES[f.activation], write_bytes=2.0 * f.batch * f.m * f.k,
                cache_read_bytes=0.0, cache_write_bytes=0.0,
            )  # fmt: skip
            yield f.replace(
                name=f"{f.name} grad weight", stage="backward", m=f.n, n=f.k, k=f.m, weight=f.activation,
                output="fp32", weight_bytes=0.0, tensors=(),
                read_bytes=f.batch * f.m * (f.n + f.k) * BYTES[f.activation],
                write_bytes=4.0 * f.batch * f.n * f.k,
                cache_read_bytes=0.0, cache_write_bytes=0.0,
            )  # fmt: skip
        elif f.kind == "attention":
            # Scores again, gradients of queries and keys: k each; of probabilities and values: k_value.
            share = (3 * f.k + 2 * f.k_value) / (f.k + f.k_value)
            yield f.replace(
                name=f"{f.name} backward", stage="backward", flop=share * f.flop,
                vector_flop=2 * f.vector_flop, read_bytes=2 * (f.read_bytes + f.write_bytes),
                write_bytes=2 * f.read_bytes, cache_write_bytes=2 * f.cache_read_bytes,
            )  # fmt: skip
        else:
            yield f.replace(
                name=f"{f.name} backward", stage="backward", vector_flop=2 * f.vector_flop,
                read_bytes=f.read_bytes + f.write_bytes, write_bytes=f.read_bytes,
            )  # fmt: skip
