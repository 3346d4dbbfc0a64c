"""Compression when a row's tokens lie on several ranks: two small messages, and the entries of one rank.

A window may begin on one rank and end on the next. So each rank

    1. sends the raw key-values and gates of its last tokens to the next rank,
    2. compresses the windows that end among its own n tokens, at most n/m + 1 of them, padded to that,
    3. gathers everybody's entries, and picks the real ones out of the padding.

Here the ranks are a loop. The report sends the last m tokens. That holds every window that ends on a rank.
Where entries overlap (CSA), a window also pools the one before it: then up to 2m − 1 tokens are needed unless
samples begin at multiples of m.

Report: section 3.5.3. Axes: s tokens of the row, n = s / ranks, w windows, c channels of raw, m = ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.model.compressor import Compressor
from workbench.model.rope import RotaryEmbedding, rotate
from workbench.model.windows import gather_windows


@dataclass(frozen=True)
class Gathered:
    """The entries of a row, and the numbers that every rank received for them in both messages.

    Shapes: entries (w, width).
    """

    entries: Tensor
    received: int
    received_raw: int


def tokens_needed(positions: Tensor, ratio: int, ranks: int, *, overlaps: bool) -> int:
    """Raw tokens that the neediest rank must get from the one before it.

    Shapes: positions (s,), each token's place in its sample.

    Raises:
        ValueError: tokens that do not share out over the ranks.
    """
    local = _local_tokens(positions, ranks, "tokens_needed")
    closes = ((positions + 1) % ratio == 0).nonzero().squeeze(1)
    has_previous = overlaps & (positions[closes] >= ratio)
    first = closes - (ratio - 1) - ratio * has_previous.long()
    return max([0, *(int(n) for n in (closes // local * local - first))])


def compress_on_ranks(
    compressor: Compressor, raw: Tensor, positions: Tensor, rotary: RotaryEmbedding, ranks: int, sent: int
) -> Gathered:
    """The entries of one packed row of tokens, each rank making those whose windows end on it.

    Shapes: raw (s, c), what the compressor's projections give; positions (s,) -> entries (w, width).

    Raises:
        ValueError: tokens that do not share out, more sent than a rank has, or fewer than windows need.
    """
    local = _local_tokens(positions, ranks, "compress_on_ranks")
    m = compressor.ratio
    needed = tokens_needed(positions, m, ranks, overlaps=compressor.overlaps)
    if not needed <= sent <= local:
        raise ValueError(
            f"compress_on_ranks: {sent} tokens are sent on; windows need {needed} of the rank before, which "
            f"has {local}; send between these, or use fewer ranks"
        )
    room = local // m + 1
    padded, counts = [], []
    for rank in range(ranks):
        begin = rank * local
        line = slice(max(begin - sent, 0), begin + local)  # the message, then what is here
        mine = _compress(compressor, raw[line], positions[line], rotary, begin - line.start)
        assert len(mine) <= room
        padded.append(torch.cat((mine, mine.new_zeros(room - len(mine), mine.shape[1]))))
        counts.append(len(mine))
    everything = torch.cat(padded)
    real = torch.cat([rank * room + torch.arange(count) for rank, count in enumerate(counts)])
    width = compressor.width
    return Gathered(
        everything.index_select(0, real),
        received=sent * raw.shape[1] + (ranks - 1) * room * width,
        received_raw=(ranks - 1) * local * raw.shape[1],
    )


def _compress(
    compressor: Compressor, line: Tensor, positions: Tensor, rotary: RotaryEmbedding, begin: int
) -> Tensor:
    """Entries of the windows that end from `begin` on in a line of tokens."""
    m = compressor.ratio
    closes = ((positions + 1) % m == 0).nonzero().squeeze(1)
    first = closes[closes >= begin] - (m - 1)
    if not len(first):
        return line.new_zeros(0, compressor.width)
    at = positions[first]
    windows = gather_windows(line, first, m, compressor.overlaps, at == 0)
    return rotate(compressor.kv_norm(compressor.pool(windows)), rotary(at, "compress", line.dtype))


def _local_tokens(positions: Tensor, ranks: int, function: str) -> int:
    if ranks < 1 or len(positions) % ranks:
        raise ValueError(
            f"{function}: {len(positions)} tokens over {ranks} ranks; each gets as many; pad the row to a "
            f"multiple"
        )
    return len(positions) // ranks
