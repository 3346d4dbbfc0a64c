"""What every list of operations is made from: sizes of one pass on one rank, weights, makers of operations.

Axes: T tokens of the pass on this rank, S sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from workbench.accounting.flop import entries_attended
from workbench.accounting.kv_cache import FORMATS, entry_width, released_format
from workbench.accounting.tensors import Tensor, tensors
from workbench.chips.operations.operation import BYTES, Operation
from workbench.chips.workload import Shard, Size, Workload, as_floats
from workbench.config import HCA, SWA, ModelConfig

STORED = {"FP8": "fp8", "FP4": "fp4", "BF16": "bf16", "F32": "fp32", "I64": "int64"}
# FP8 and FP4 weights multiply FP8 activations; the others what the trunk keeps its activations in.
ACTIVATION = {"fp8": "fp8", "fp4": "fp8", "bf16": "bf16", "fp32": "bf16"}


@dataclass(frozen=True)
class Pass:
    """The sizes of one pass on one rank.

    tokens: T, new tokens that go through the linear maps; sequences: S; new: tokens of each sequence;
    before: cached tokens of each sequence; cache_ranks: ranks over which a sequence's cache is cut.
    """

    config: ModelConfig
    shard: Shard
    sequences: Size
    new: Size
    before: Size
    is_decode: bool
    cache_format: str
    logits: str = "last"
    query_ranks: int = 1
    cache_ranks: int = 1
    tokens: Size = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", self.sequences * self.new / self.query_ranks)

    @classmethod
    def of(cls, config: ModelConfig, workload: Workload, shard: Shard) -> Pass:
        sequences, new, before = as_floats(workload.batch, workload.tokens_computed, workload.tokens_before)
        is_decode = workload.phase == "decode"
        return cls(
            config, shard, sequences, new, before, is_decode,
            workload.cache_format or released_format(config),
            logits="last" if workload.phase == "prefill" and workload.logits == "last" else "all",
            query_ranks=1 if is_decode else shard.cp,
            cache_ranks=shard.cp if is_decode else 1,
        )  # fmt: skip

    @cached_property
    def entry_bytes(self) -> float:
        """Bytes of one cached entry of one layer."""
        return FORMATS[self.cache_format].entry.entry_bytes(*entry_width(self.config))

    @cached_property
    def index_key_bytes(self) -> float:
        return FORMATS[self.cache_format].index_key.entry_bytes(self.config.index_head_dim or 0)

    @property
    def visible(self) -> Size:
        """Tokens of a sequence that its last query may see."""
        return self.before + self.new

    @cached_property
    def _sums(self) -> dict[tuple[str, int], Size]:
        return {}

    def attended(self, kind: str, ratio: int = 0) -> Size:
        """Keys that the queries of one sequence read, summed over them; over one of cp ranks."""
        if (kind, ratio) not in self._sums:
            if not np.ndim(self.new) and self.new == 1:
                total = entries_attended(self.config, self.visible, kind, ratio)
            else:
                end, begin = (
                    entries_attended(self.config, seen, kind, ratio, summed=True)
                    for seen in (self.visible, self.before)
                )
                total = end - begin
            share = self.query_ranks * self.cache_ranks
            self._sums[kind, ratio] = (total if total.ndim else float(total)) / share
        return self._sums[kind, ratio]

    def all_keys(self) -> Size:
        """Keys that the queries of one sequence see when nothing is compressed, summed over them."""
        total = self.new * self.before + self.new * (self.new + 1) / 2
        return total / (self.query_ranks * self.cache_ranks)

    def seen_entries(self, ratio: int) -> Size:
        """Complete windows of `ratio` tokens that queries see, summed over the queries of one sequence."""
        # Without a limit: what a heavily compressed layer reads beside its window.
        return self.attended(HCA, ratio) - self.attended(SWA)


@dataclass(frozen=True, slots=True)
class Weight:
    """What the operations need to know of a tensor of accounting.tensors; bytes with scales, all copies."""

    rows: int
    columns: int
    stored: str
    stored_bytes: float
    copies: int

    @classmethod
    def of(cls, tensor: Tensor) -> Weight:
        rows, columns = tensor.shape if len(tensor.shape) == 2 else (1, tensor.shape[-1])
        return cls(rows, columns, STORED[tensor.stored], float(tensor.stored_bytes), tensor.copies)


@dataclass(frozen=True)
class Layer:
    """The weights of one layer (or of what stands outside the layers), and makers of its operations."""

    run: Pass
    weights: dict[str, Weight]
    layer_type: str
    count: Size
    part: str = "trunk"

    def has(self, name: str) -> bool:
        return name in self.weights

    def beside(self, tensors: tuple[str, ...]) -> tuple[int, int, str, float]:
        """Weights that lie side by side: rows of all, columns, format of the first, bytes of all."""
        first = self.weights[tensors[0]]
        if len(tensors) == 1:
            return first.rows, first.columns, first.stored, first.stored_bytes
        rows, size = first.rows, first.stored_bytes
        for name in tensors[1:]:
            rows += self.weights[name].rows
            size += self.weights[name].stored_bytes
        return rows, first.columns, first.stored, size

    def gemm(
        self,
        name: str,
        group: str,
        tensors: tuple[str, ...],
        m: Size,
        *,
        column: int = 1,
        row: int = 1,
        output: str = "bf16",
        batch: int = 1,
        **more: Any,
    ) -> Operation:
        """A linear map by one weight, or by several that lie side by side.

        `column` ranks share its outputs, `row` ranks its inputs; a block-diagonal map has `batch` blocks, cut
        over `column` ranks.
        """
        rows, columns, stored, size = self.beside(tensors)
        n, k = rows / (column * batch), columns / row
        if batch > 1:
            n, batch = n * column, batch // column
        activation = ACTIVATION[stored]
        return Operation(
            name=name, kind="gemm", layer_type=self.layer_type, group=group, count=self.count, part=self.part,
            batch=batch, m=m, n=n, k=k, activation=activation, weight=stored, output=output,
            flop=2 * batch * m * n * k,
            weight_bytes=size / (column * row),
            read_bytes=batch * m * k * BYTES[activation],
            write_bytes=batch * m * n * BYTES[output],
            tensors=tensors, **more,
        )  # fmt: skip

    def elementwise(
        self,
        name: str,
        group: str,
        *,
        read: Size,
        write: Size,
        flop: Size,
        tensors: tuple[str, ...] = (),
        kind: Any = "elementwise",
        **more: Any,
    ) -> Operation:
        """Work on vectors: `read` and `write` in bytes; small weights (norms, biases) ride along."""
        return Operation(
            name=name, kind=kind, layer_type=self.layer_type, group=group, count=self.count, part=self.part,
            read_bytes=read, write_bytes=write, vector_flop=flop,
            weight_bytes=self.beside(tensors)[3] if tensors else 0.0, tensors=tensors, **more,
        )  # fmt: skip

    def norm(self, name: str, group: str, width: int, tensors: tuple[str, ...]) -> Operation:
        """A root-mean-square norm of T vectors whose output is rounded for the products that follow."""
        low = self.run.config.quantization_config is not None
        rows = self.run.tokens * width
        return self.elementwise(
            name, group, read=2 * rows, write=(1 if low else 2) * rows, flop=4 * rows, tensors=tensors
        )

    def attention(
        self, name: str, *, batch: Size, m: Size, keys: Size, k: int, k_value: int, **more: Any
    ) -> Operation:
        """Scores, softmax and values; `keys` per query row, on average."""
        return Operation(
            name=name, kind="attention", layer_type=self.layer_type, group="core", count=self.count,
            part=self.part, batch=batch, m=m, n=keys, k=k, k_value=k_value,
            flop=2 * batch * m * keys * (k + k_value), vector_flop=8 * batch * m * keys,
            read_bytes=2 * batch * m * k, write_bytes=2 * batch * m * k_value, **more,
        )  # fmt: skip


@lru_cache(maxsize=64)
def weights_of(config: ModelConfig) -> dict[tuple[str, int | None], dict[str, Weight]]:
    """Weights by (part, layer or MTP block), under names relative to it; layer None is outside all layers."""
    table: dict[tuple[str, int | None], dict[str, Weight]] = {}
    for row in tensors(config):
        key: tuple[str, int | None]
        if row.part == "mtp":
            _, block, name = row.name.split(".", 2)
            key = ("mtp", int(block))
        elif row.layer is None:
            key, name = ("trunk", None), row.name.removeprefix("model.")
        else:
            key, name = ("trunk", row.layer), row.name.split(".", 3)[3]
        table.setdefault(key, {})[name] = Weight.of(row)
    return table


@lru_cache(maxsize=256)
def layer_plan(config: ModelConfig, first: int, last: int) -> tuple[list[tuple[str, int, int, int]], ...]:
    """Layers [first, last) by what they do: (type, ratio, how many, one of them) for attention, then MLP."""
    attention: dict[tuple[str, int], list[int]] = {}
    mlp: dict[str, list[int]] = {}
    kinds = list(zip(config.attention_types, config.layer_ratios, config.mlp_types, strict=True))
    for i, (kind, ratio, mlp_kind) in enumerate(kinds[first:last], start=first):
        attention.setdefault((kind, ratio), []).append(i)
        mlp.setdefault(mlp_kind, []).append(i)
    return (
        [(kind, ratio, len(at), at[0]) for (kind, ratio), at in attention.items()],
        [(kind, 0, len(at), at[0]) for kind, at in mlp.items()],
    )


@lru_cache(maxsize=64)
def trained(config: ModelConfig) -> ModelConfig:
    """The configuration as it is trained: V4's experts become FP4 in post-training only (report, 3.4)."""
    return config.replace(expert_dtype=None) if config.expert_dtype else config


def least(a: Size, b: Size) -> Size:
    """The smaller of two; plain numbers stay plain."""
    return np.minimum(a, b) if np.ndim(a) or np.ndim(b) else min(a, b)


def log2(n: float) -> float:
    return math.log2(max(n, 2))
