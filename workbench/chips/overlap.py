"""How expert traffic hides behind expert products: in turn, in pairs, in waves, or in half-batches.

An expert layer is five stages on three engines:

    dispatch (link) → up (matrix) → activation (vector) → down (matrix) → combine (link)

One after the other they add. Overlapped in pairs (dispatch with up, down with combine) the longer of each
pair counts. In waves, a few experts at a time run through all five, so that each engine works while the
others do, and the busiest one sets the time once the first wave has filled the pipeline.

Report: section 3.1 and figure 5. Shapes: times may be arrays that broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Size = Any  # a number, or an array of numbers


@dataclass(frozen=True)
class ExpertStages:
    """Seconds of the five stages of one expert layer, each run by itself."""

    dispatch: Size
    up: Size
    activation: Size
    down: Size
    combine: Size

    @property
    def in_turn(self) -> Size:
        """One after the other."""
        return self.dispatch + self.up + self.activation + self.down + self.combine

    @property
    def in_pairs(self) -> Size:
        """Dispatch behind the first product and combine behind the second, the activation by itself."""
        return np.maximum(self.dispatch, self.up) + self.activation + np.maximum(self.down, self.combine)

    def in_waves(self, waves: int) -> Size:
        """`waves` equal parts in a pipeline: the first fills it, then the busiest engine sets the pace.

        Raises:
            ValueError: fewer than one wave.
        """
        if waves < 1:
            raise ValueError(f"ExpertStages.in_waves: waves is {waves}; a layer has 1 or more; change it")
        link = self.dispatch + self.combine
        matrix = self.up + self.down
        busiest = np.maximum(np.maximum(link, matrix), self.activation)
        return (self.in_turn + (waves - 1) * busiest) / waves

    def speedup(self, waves: int) -> Size:
        """How much faster waves are than one stage after the other."""
        return self.in_turn / self.in_waves(waves)


def expert_stages(
    communication_share: float, activation_share: float = 0.0, *, bytes_back: float = 2.0
) -> ExpertStages:
    """Stages relative to the expert products, which take 1 together: two thirds up, one third down.

    communication_share: dispatch and combine over the products; combine sends `bytes_back` times as many
    bytes (BF16 back for FP8 out). activation_share: the activation over the products.
    """
    out = communication_share / (1 + bytes_back)
    return ExpertStages(out, 2 / 3, activation_share, 1 / 3, out * bytes_back)


def two_batches(compute: Size, traffic: Size) -> Size:
    """Two half-batches that take turns: while one computes, the tokens of the other travel.

    compute and traffic are the sums over both halves. Only the first dispatch and the last combine cannot
    hide: about a tenth of the shorter of the two, since an engine does not switch at no cost.
    """
    return np.maximum(compute, traffic) + EXPOSED_SHARE * np.minimum(compute, traffic)


# Assumed, 0 to 0.3: CloudMatrix measures 5.8 to 9.4% from two batches in decoding, 23 to 31% in prefill,
# where traffic is a quarter to a third of the time (arXiv 2506.12708).
EXPOSED_SHARE = 0.1
