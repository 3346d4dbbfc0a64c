"""Compressed entries of a batch, which of them a query may see, and how attention reads them.

Axes: b rows, s query tokens, t entries of a row, k selected entries, c channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """The entries of every row, one row after the other, with room for `len(flat) / rows` each.

    Shapes: flat (b·capacity, c).
    """

    flat: Tensor
    rows: int

    def range(self, first: int, end: int) -> Tensor:
        """Entries first..end-1 of every row, without copying. -> (b, end - first, c)."""
        return self.flat.unflatten(0, (self.rows, -1))[:, first:end]

    def addresses(self, row: Tensor, entry: Tensor) -> Tensor:
        """Where entries lie in `flat`; row and entry broadcast."""
        return row * (self.flat.shape[0] // self.rows) + entry

    def select(self, index: Tensor) -> Tensor:
        """Gather the entries that each query chose. index (b, s, k) -> (b, s, k, c)."""
        row = torch.arange(self.rows, device=index.device)[:, None, None]
        return self.flat.index_select(0, self.addresses(row, index).flatten()).unflatten(0, index.shape)


class Visible:
    """Which entries each query may see: those whose window lies at or before it.

    A query at position p sees entries 0 .. (p + 1) // ratio - 1.

    Args:
        positions: (b or 1, s).
        spans: of each row, the position of its first token and how many tokens it has; what follows
            them is padding, which must not point past the row's entries.
    """

    def __init__(self, positions: Tensor, spans: Sequence[tuple[int, int]], ratio: int):
        self.ratio, self.spans = ratio, set(spans)  # rows of one length are one span
        self.end = (positions + 1) // ratio
        if any(count < positions.shape[1] for _, count in spans):
            entries = [(start + count) // ratio for start, count in spans]
            self.end = self.end.minimum(torch.tensor(entries, device=positions.device)[:, None])

    def bounds(self, begin: int, stop: int) -> tuple[int, int]:
        """The smallest range (first, end) of entries that holds all that queries begin..stop-1 see."""
        return 0, max((start + min(stop, count)) // self.ratio for start, count in self.spans)

    def certain(self, begin: int) -> int:
        """Every query from `begin` on sees all entries below this one."""
        return min((start + min(begin + 1, count)) // self.ratio for start, count in self.spans)

    def hidden(self, begin: int, stop: int, first: int, end: int) -> Tensor:
        """Whether entries first..end-1 are out of sight of queries begin..stop-1: (b or 1, s, t)."""
        return torch.arange(first, end, device=self.end.device) >= self.end[:, begin:stop, None]

    def bias(self, begin: int, stop: int, first: int, end: int, dtype: torch.dtype) -> Tensor | None:
        """0 where a query sees an entry, -inf elsewhere, (b or 1, s, t); None if every query sees all."""
        if self.certain(begin) >= end:
            return None
        hidden = self.hidden(begin, stop, first, end)
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)


class PackedVisible(Visible):
    """As Visible, in rows of several samples: a query sees entries first .. end - 1, of its own sample.

    Shapes: first, end (b, s); both never fall along a row.
    """

    def __init__(self, first: Tensor, end: Tensor):
        self.first, self.end = first, end

    def bounds(self, begin: int, stop: int) -> tuple[int, int]:
        return int(self.first[:, begin].min()), int(self.end[:, stop - 1].max())

    def certain(self, begin: int) -> int:
        return 0

    def hidden(self, begin: int, stop: int, first: int, end: int) -> Tensor:
        entry = torch.arange(first, end, device=self.end.device)
        return (entry >= self.end[:, begin:stop, None]) | (entry < self.first[:, begin:stop, None])
