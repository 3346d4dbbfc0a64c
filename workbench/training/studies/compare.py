"""Differences of paired runs, with intervals, and what may be concluded from them.

Runs with one seed share data and first weights, so that a difference is taken seed by seed. The interval is
Student's over the seeds. What would count is fixed here, before any run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MARGIN = 0.02
"""Nats a token that "not worse" may lose: the size of the gain that the mHC paper reports at 27B."""


class Difference(NamedTuple):
    """Variant minus reference: the mean, its 95% interval, and each seed's."""

    value: float
    low: float
    high: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def difference(variant: Sequence[float], reference: Sequence[float]) -> Difference:
    """Paired by place.

    Raises:
        ValueError: fewer than two pairs, or unequal numbers.
    """
    from scipy import stats

    if len(variant) != len(reference) or len(variant) < 2:
        raise ValueError(
            f"difference: got {len(variant)} and {len(reference)} values; needs two or more pairs; run the "
            f"same seeds of both"
        )
    found = np.subtract(variant, reference)
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    mean = float(found.mean())
    return Difference(mean, mean - half, mean + half, tuple(found.tolist()))


def is_lower(found: Difference) -> bool | None:
    """Whether the variant's number is the lower one: None where the interval holds zero."""
    if found.low <= 0 <= found.high:
        return None
    return found.high < 0


def is_not_worse(found: Difference, margin: float = MARGIN) -> bool | None:
    """Whether a loss is higher by less than the margin: None where the interval holds the margin."""
    if found.low <= margin <= found.high:
        return None
    return found.high < margin
