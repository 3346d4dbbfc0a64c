"""Attention in parts: how units of a chip share one query's keys, and what that does to the bits.

Report: section 3.3. Axes: b rows, t keys, c channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from workbench.quant.arithmetic.orders import pairwise_sum

TILE_TOKENS = 64  # keys that a unit holds at a time


class Partial(NamedTuple):
    """Attention over some of the keys.

    Shapes: largest logit (b, 1), sum of weights (b, 1), weighted values (b, c).
    """

    largest: Tensor
    total: Tensor
    weighted: Tensor

    def merge(self, other: "Partial") -> "Partial":
        """Attention over both sets of keys. Addition rounds, so merging is not associative."""
        largest = self.largest.maximum(other.largest)
        mine, theirs = (self.largest - largest).exp(), (other.largest - largest).exp()
        return Partial(
            largest,
            self.total * mine + other.total * theirs,
            self.weighted * mine + other.weighted * theirs,
        )


def attend_in_parts(
    q: Tensor, kv: Tensor, part_tokens: int, finish_order: Sequence[int] | None = None
) -> Tensor:
    """Attention of one query a row over keys cut into parts of `part_tokens`, as units of a chip share it.

    A unit walks through its part tile by tile; then the parts are merged from first to last, whichever
    unit was done first. Sums are kept in the dtype of the arguments. Keys are values, as in V4.

    Shapes: q (b, c), kv (b, t, c) -> (b, c).

    Raises:
        ValueError: part_tokens is no whole number of tiles, or finish_order does not name every part once.
    """
    parts = kv.split(part_tokens, dim=1)
    order = range(len(parts)) if finish_order is None else finish_order
    if part_tokens % TILE_TOKENS or sorted(order) != list(range(len(parts))):
        raise ValueError(
            f"attend_in_parts: got part_tokens={part_tokens} and finish_order={finish_order}; parts hold "
            f"whole tiles of {TILE_TOKENS} tokens and each of the {len(parts)} ends once; correct them"
        )
    done: dict[int, Partial] = {}
    for number in order:
        done[number] = _merged([_attend_tile(q, tile) for tile in parts[number].split(TILE_TOKENS, dim=1)])
    whole = _merged([done[number] for number in range(len(parts))])
    return whole.weighted / whole.total


def split_tokens(t: int, rows: int, units: int) -> int:
    """Tokens of a part under split-KV: every unit gets one, so the cut depends on the batch.

    `rows` sequences share `units`; a sequence is cut into as many parts as units are left for it.
    """
    tiles = -(-t // TILE_TOKENS)
    splits = min(max(units // rows, 1), tiles)
    return -(-tiles // splits) * TILE_TOKENS


def _attend_tile(q: Tensor, kv: Tensor) -> Partial:
    logits = pairwise_sum(q.unsqueeze(1) * kv, dim=-1) * q.shape[-1] ** -0.5
    largest = logits.amax(dim=1, keepdim=True)
    weights = (logits - largest).exp()
    return Partial(
        largest,
        pairwise_sum(weights, dim=1).unsqueeze(1),
        pairwise_sum(weights.unsqueeze(2) * kv, dim=1),
    )


def _merged(partials: Sequence[Partial]) -> Partial:
    whole = partials[0]
    for partial in partials[1:]:
        whole = whole.merge(partial)
    return whole
