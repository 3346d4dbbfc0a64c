"""The order of a sum decides its bits: sums in a stated order, and how a chip cuts a long reduction.

Every operation here is elementwise or a sum in a stated order, so that nothing else can move a bit: not
the library, not the number of threads, not the other rows of a batch.

Report: sections 3.2 and 3.3. Axes: n terms, m and n rows and columns of a product, k its reduction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def ordered_sum(terms: Tensor, order: Sequence[int] | Tensor) -> Tensor:
    """Add terms to an accumulator one after the other, in this order: what atomic additions do.

    Shapes: terms (n, ...) -> (...).
    """
    total = torch.zeros_like(terms[0])
    for number in order:
        total = total + terms[number]
    return total


def buffered_sum(terms: Tensor, n_buffers: int, finish_order: Sequence[int] | Tensor) -> Tensor:
    """Sum with a buffer for each unit: unit u adds terms u, u + n, u + 2n, ... to its own; then the buffers
    are added from first to last, whichever was done first.

    Shapes: terms (n, ...) -> (...).
    """
    buffers = terms.new_empty(n_buffers, *terms.shape[1:])
    for unit in map(int, finish_order):
        buffers[unit] = ordered_sum(terms, range(unit, len(terms), n_buffers))
    return ordered_sum(buffers, range(n_buffers))


def pairwise_sum(terms: Tensor, dim: int) -> Tensor:
    """The sum along an axis as a fixed tree: neighbours first, an odd last one waits."""
    terms = terms.movedim(dim, 0)
    while len(terms) > 1:
        even = len(terms) // 2 * 2
        terms = torch.cat((terms[0:even:2] + terms[1:even:2], terms[even:]))
    return terms[0]


@dataclass(frozen=True)
class FillUnits:
    """As many parts as leave no unit idle: split-k as libraries choose it, by the size of the batch.

    Each of the chip's `units` takes output tiles of `rows` × `columns`; units left over split the reduction.
    """

    units: int
    rows: int = 64
    columns: int = 128

    def __call__(self, m: int, n: int) -> int:
        return max(self.units // (-(-m // self.rows) * -(-n // self.columns)), 1)


@dataclass(frozen=True)
class Order:
    """How the reduction of a matrix product is cut into parts, and how the parts' sums are added.

    `parts`: how many (1: no split), or a function of the output's rows and columns; None: one for each
    promotion to FP32. A unit walks through its part in the order of k. `combine`: from first to last,
    whichever is done first; as a tree; or as they come ("random": atomic additions, in an order drawn from
    the generator that `matmul` is given).
    """

    parts: int | FillUnits | None = 1
    combine: Literal["first to last", "tree", "random"] = "first to last"

    def cut(self, k: int, granule: int, m: int, n: int) -> list[slice]:
        """The parts of k, whole numbers of `granule` products except for the last.

        Raises:
            ValueError: fewer than one part.
        """
        granules = -(-k // granule)
        parts = self.parts(m, n) if isinstance(self.parts, FillUnits) else self.parts
        if parts is not None and parts < 1:
            raise ValueError(f"Order: got parts={parts}; a sum has at least one; give 1 for no split")
        length = (1 if parts is None else max(-(-granules // parts), 1)) * granule
        return [slice(begin, min(begin + length, k)) for begin in range(0, k, length)]

    def add(self, sums: Tensor, generator: torch.Generator | None) -> Tensor:
        """The sum over parts, (parts, m, n) -> (m, n), in the dtype of the sums.

        Raises:
            ValueError: a random order without a generator.
        """
        if self.combine == "tree":
            return pairwise_sum(sums, 0)
        if self.combine == "first to last":
            return ordered_sum(sums, range(len(sums)))
        if generator is None:
            raise ValueError("Order: got combine='random' and no generator; pass generator=torch.Generator()")
        return ordered_sum(sums, torch.randperm(len(sums), generator=generator))


SEQUENTIAL = Order()
