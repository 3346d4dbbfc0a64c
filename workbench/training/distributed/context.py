"""Context parallelism: the tokens of a row are cut into equal stretches, one a process.

Attention looks across the cuts in two ways, and both need only what is small:

    window keys          the last sliding_window - 1 keys of the process before
    compressed entries   1. the last m tokens before a cut go to the next process, raw, so that it can
                            finish the window that the cut runs through: at most s / m + 1 entries each
                         2. these entries, padded to that number, are gathered by all; each process
                            selects the real ones into the order of the row

Nothing else changes: every process runs the network on its own tokens, with the positions they have in
their samples. All processes know all token ids, so who closes which window needs no message.

Report: section 3.5.3. Where entries overlap (CSA, compressed sparse attention) the last 2m tokens travel:
an entry pools the window before its own too.
Axes: b rows, s tokens of a stretch, w windows, m tokens of a window, c channels, p processes.
"""

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.model.entries import Entries, PackedVisible
from workbench.model.layout import Layout, PackedLayout
from workbench.model.rope import RotaryEmbedding
from workbench.model.windows import PackedWindows, Pooled, Windows, gather_windows
from workbench.training.distributed.exchange import exchange, gather

if TYPE_CHECKING:
    from workbench.model.cache import CompressedState


class Stretch:
    """The tokens of rows that this process has, of a group that shares the rows.

    Raises:
        ValueError: the rows do not divide into as many stretches as there are processes.
    """

    def __init__(self, row_tokens: int, group: dist.ProcessGroup):
        self.group, self.n = group, dist.get_world_size(group)
        self.place = dist.get_rank(group)
        if row_tokens % self.n:
            raise ValueError(
                f"Stretch: got rows of {row_tokens} tokens for {self.n} processes; needs a multiple of "
                f"{self.n}; pack rows of another length or share them among fewer"
            )
        self.tokens = row_tokens // self.n

    def of(self, x: Tensor) -> Tensor:
        """This process's columns: (b, p·s) -> (b, s)."""
        return x[:, self.place * self.tokens : (self.place + 1) * self.tokens]

    def with_tail_before(self, x: Tensor, tail: int) -> Tensor:
        """x after the last `tail` tokens of the process before; zeros stand before the first process's.

        Shapes: x (b, s, c) -> (b, tail + s, c).

        Raises:
            ValueError: a stretch is shorter than the tail.
        """
        if tail > self.tokens:
            raise ValueError(
                f"Stretch: got stretches of {self.tokens} tokens; attention needs the {tail} before a cut "
                f"from one process; share longer rows, or share them among fewer"
            )
        b, _, c = x.shape
        is_last, is_first = self.place == self.n - 1, self.place == 0
        send, receive = [0] * self.n, [0] * self.n
        if not is_last:
            send[self.place + 1] = b * tail
        if not is_first:
            receive[self.place - 1] = b * tail
        sent = x[:, self.tokens - tail :].reshape(b * tail, c)[: sum(send)]
        came = exchange(sent, send, receive, self.group)
        before = x.new_zeros(b, tail, c) if is_first else came.view(b, tail, c)
        if is_first:
            before = before + came.sum()  # nothing came: keeps the backward pass calling, as everyone must
        return torch.cat((before, x), dim=1)


class ContextLayout(Layout):
    """This process's stretch of packed rows.

    Shapes: sample_ids (b, p·s), of the whole rows; positions (b, s).
    """

    def __init__(
        self,
        rotary: RotaryEmbedding,
        sample_ids: Tensor,
        sliding_window: int,
        dtype: torch.dtype,
        stretch: Stretch,
    ):
        self.whole = PackedLayout(rotary, sample_ids, sliding_window, dtype)
        self.stretch = stretch
        super().__init__(rotary, stretch.of(self.whole.positions), len(sample_ids), sliding_window, dtype)

    def keys(self, kv: Tensor, state: Tensor | None) -> Tensor:
        return self.stretch.with_tail_before(kv, self.sliding_window - 1)

    def _make_windows(self, ratio: int) -> Windows:
        whole = self.whole.windows(ratio)
        assert isinstance(whole, PackedWindows)
        return ContextWindows(whole, self.whole.n_tokens, self.stretch)


class ContextWindows(Windows):
    """The windows whose last token this process has, and the entries of all.

    Args:
        whole: the windows of the whole rows, of `row_tokens` tokens.
    """

    def __init__(self, whole: PackedWindows, row_tokens: int, stretch: Stretch):
        self.ratio, self.count, self.stretch = whole.ratio, whole.count, stretch
        assert isinstance(whole.visible, PackedVisible)
        self.visible = PackedVisible(stretch.of(whole.visible.first), stretch.of(whole.visible.end))
        rows = len(whole.visible.end)
        self.room = rows * (stretch.tokens // self.ratio + 1)  # entries of one process, padded

        row, first = whole.first_token // row_tokens, whole.first_token % row_tokens
        closer = (first + self.ratio - 1) // stretch.tokens
        is_own = closer == stretch.place
        self.is_first, self.rotation = whole.is_first[is_own], whole.rotation[is_own]
        self.row, self.first = row[is_own], first[is_own] - stretch.place * stretch.tokens
        # Where each window's entry lies in what is gathered: in its closer's room, counted from its first.
        number = torch.zeros_like(closer)
        for place in range(stretch.n):
            number[closer == place] = torch.arange(int((closer == place).sum()), device=closer.device)
        self.address = (closer * self.room + number)[whole.unpack] if self.count else whole.unpack

    def split(self, raw: Tensor, overlaps: bool, state: "CompressedState | None") -> Pooled | None:
        if self.count == 0:
            return None
        tail = self.ratio * (2 if overlaps else 1)
        line = self.stretch.with_tail_before(raw, tail)
        place = self.row * line.shape[1] + tail + self.first
        return gather_windows(line.flatten(0, 1), place, self.ratio, overlaps, self.is_first)

    def collect(self, entries: Tensor | None, state: "CompressedState | None") -> Entries | None:
        if entries is None:
            return None
        padding = entries.new_zeros(self.room - len(entries), entries.shape[1])
        everyones = gather(torch.cat((entries, padding)), self.stretch.group).flatten(0, 1)
        return Entries(everyones.index_select(0, self.address.flatten()), len(self.address))
