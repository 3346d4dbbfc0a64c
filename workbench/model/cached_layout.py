"""The layout of a pass that continues rows whose past lies in a cache.

Everything a step reads or writes has an address here, computed once per pass from the rows' lengths and
shared by all layers. The new tokens of a row stand at its left; `counts` says how many there are.

Axes: b rows, s tokens, c channels, r ring slots, w windows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from workbench.model.cache import Cache, CompressedState
from workbench.model.entries import Entries, Visible
from workbench.model.layout import Layout
from workbench.model.rope import RotaryEmbedding
from workbench.model.windows import Pooled, Windows, gather_windows


class RingWrite(NamedTuple):
    """Which tokens (b·s) go to which slots (b·r) of a ring; tokens None stands for all of them."""

    tokens: Tensor | None
    slots: Tensor


class CachedLayout(Layout):
    """The next `counts` tokens of each row of a cache, s of them with padding.

    They start at position `starts` of each row, by default where the cache ends.
    """

    def __init__(
        self,
        rotary: RotaryEmbedding,
        cache: Cache,
        counts: Sequence[int],
        s: int,
        starts: Sequence[int] | None = None,
    ):
        self.cache, self.counts = cache, list(counts)
        device, dtype = cache.layers[0].window.device, cache.layers[0].window.dtype
        self.starts = list(cache.lengths if starts is None else starts)
        self.offset = torch.tensor(self.starts, device=device)[:, None]  # (b, 1)
        self.is_even = len(set(self.starts)) == 1 and set(counts) == {s}
        positions = self.offset[: 1 if self.is_even else None] + torch.arange(s, device=device)
        spans = list(zip(self.starts, self.counts, strict=True))
        super().__init__(rotary, positions, cache.batch_size, cache.sliding_window, dtype, spans)
        self._reads: dict[tuple[int, int], Tensor] = {}
        self._writes: dict[int, RingWrite] = {}
        self.row_blocks = self._row_blocks()

    @property
    def reach(self) -> Tensor:
        if not any(self.cache.origins):
            return self.positions
        return self.positions - torch.tensor(self.cache.origins, device=self.positions.device)[:, None]

    @property
    def shortest_reach(self) -> int:
        return min(length - origin for length, origin in zip(self.starts, self.cache.origins, strict=True))

    def _make_windows(self, ratio: int) -> Windows:
        return CachedWindows(self, ratio)

    def keys(self, kv: Tensor, state: Tensor | None) -> Tensor:
        assert state is not None
        return self.extend(state, kv, self.sliding_window - 1)

    def extend(self, ring: Tensor, tokens: Tensor, context: int) -> Tensor:
        """This pass's tokens after the last `context` before it; the ring then holds the new ones too.

        Shapes: ring (b, r, c), tokens (b, s, c) -> (b, context + s, c).
        """
        earlier = ring.flatten(0, 1).index_select(0, self._read(ring.shape[1], context))
        self.remember(ring, tokens)
        return torch.cat((earlier.unflatten(0, (len(ring), context)), tokens), dim=1)

    def remember(self, ring: Tensor, tokens: Tensor) -> None:
        """Write this pass's tokens over the oldest ones. ring (b, r, c), tokens (b, s, c)."""
        chosen, slots = self._write(ring.shape[1])
        new = tokens.flatten(0, 1)
        ring.flatten(0, 1).index_copy_(0, slots, new if chosen is None else new.index_select(0, chosen))

    def _read(self, r: int, context: int) -> Tensor:
        if (r, context) not in self._reads:
            row = torch.arange(self.rows, device=self.offset.device)[:, None] * r
            back = torch.arange(-context, 0, device=self.offset.device)
            self._reads[r, context] = ((self.offset + back) % r + row).flatten()
        return self._reads[r, context]

    def _write(self, r: int) -> RingWrite:
        if r not in self._writes:
            device, s = self.offset.device, self.n_tokens
            row, token = torch.arange(self.rows, device=device)[:, None], torch.arange(s, device=device)
            slots = (self.offset + token) % r + row * r
            if self.is_even and s <= r:
                self._writes[r] = RingWrite(None, slots.flatten())
            else:
                # Only the last r tokens of a row: earlier ones would be overwritten at once.
                count = torch.tensor(self.counts, device=device)[:, None]
                kept = (token < count) & (token >= count - r)
                self._writes[r] = RingWrite((row * s + token)[kept], slots[kept])
        return self._writes[r]

    def _row_blocks(self) -> Tensor | None:
        """The block table as a tensor, or None where the blocks lie in order, row by row."""
        rows = self.cache.blocks.rows
        is_in_order = len(rows) == 1 and rows[0] == list(range(len(rows[0])))
        if is_in_order or not self.cache.stores:
            return None
        width = max(len(blocks) for blocks in rows)
        padded = [blocks + [0] * (width - len(blocks)) for blocks in rows]
        return torch.tensor(padded, dtype=torch.long, device=self.offset.device)


class CachedWindows(Windows):
    """The windows that the new tokens complete, in all rows; their entries go to the store."""

    def __init__(self, layout: CachedLayout, ratio: int):
        self.layout, self.ratio = layout, ratio
        rows: list[int] = []
        windows: list[int] = []
        for row, (length, count) in enumerate(layout.spans):
            new = range(max(length, layout.cache.stored[row]) // ratio, (length + count) // ratio)
            rows += [row] * len(new)
            windows += new
        self.count = len(windows)
        self.visible = Visible(layout.positions, layout.spans, ratio)
        if self.count:
            device = layout.offset.device
            self.row, self.window = torch.tensor(rows, device=device), torch.tensor(windows, device=device)
            self.rotation = layout.rotary(self.window * ratio, "compress", layout.dtype)

    def split(self, raw: Tensor, overlaps: bool, state: CompressedState | None) -> Pooled | None:
        assert state is not None
        if self.count == 0:
            self.layout.remember(state.tail, raw)
            return None
        context = (2 * self.ratio if overlaps else self.ratio) - 1
        line = self.layout.extend(state.tail, raw, context)
        first = (
            self.window * self.ratio - self.layout.offset[self.row, 0] + context + self.row * line.shape[1]
        )
        line = rearrange(line, "b s c -> (b s) c")
        return gather_windows(line, first, self.ratio, overlaps, self.window == 0)

    def collect(self, entries: Tensor | None, state: CompressedState | None) -> Entries | None:
        assert state is not None
        stored = self.layout.cache.entries(state, self.layout.row_blocks)
        if entries is not None:
            stored.flat.index_copy_(0, stored.addresses(self.row, self.window), entries)
        return stored
