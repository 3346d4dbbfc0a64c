"""How good a policy is, with the uncertainty that few problems leave.

The unit of every interval is the problem: answers to one problem resemble each other, so treating them as
independent makes intervals too narrow.

Axes: p problems, n answers to each.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A value and the range that holds it with the stated confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pass_at_k(right: int, answers: int, k: int) -> float:
    """The chance that at least one of k answers is right, without bias, from `answers` >= k of them.

    1 - C(n - c, k) / C(n, k), as a product that stays small.

    Raises:
        ValueError: k outside 1..answers, or more right than answers.
    Source: arXiv 2107.03374.
    """
    if not 1 <= k <= answers or not 0 <= right <= answers:
        raise ValueError(
            f"pass_at_k: got right={right}, answers={answers}, k={k}; needs 0 <= right <= answers and 1 <= "
            f"k <= answers; draw more answers"
        )
    if answers - right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(answers - right + 1, answers + 1)))


def mean_pass_at_k(is_right: ArrayLike, k: int) -> NDArray[np.float64]:
    """pass@k of every problem: (p, n) -> (p,)."""
    table = np.asarray(is_right, dtype=bool)
    return np.array([pass_at_k(int(row.sum()), table.shape[1], k) for row in table])


def majority(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The most frequent answer; of equals, the one that came first. None (no answer) wins only alone."""
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=lambda answer: counts[answer]) if counts else None


def majority_at_k(
    answers: Sequence[Sequence[Hashable | None]],
    is_right: Sequence[Callable[[Hashable], bool]],
    k: int,
    *,
    subsets: int = 8,
    seed: int = 0,
) -> NDArray[np.float64]:
    """How often the majority of k answers is right, for every problem, over random subsets of its answers."""
    rng = np.random.default_rng(seed)
    shares = []
    for own, check in zip(answers, is_right, strict=True):
        votes = [
            majority([own[i] for i in rng.choice(len(own), size=k, replace=False)]) for _ in range(subsets)
        ]
        shares.append(np.mean([vote is not None and check(vote) for vote in votes]))
    return np.array(shares)


def bootstrap(values: ArrayLike, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean of one number a problem, with a percentile interval over redrawn problems.

    Raises:
        ValueError: no values.
    """
    own = np.asarray(values, dtype=float)
    if own.ndim != 1 or not len(own):
        raise ValueError(
            f"bootstrap: got values of shape {own.shape}; needs one number a problem; average its answers "
            f"first"
        )
    rng = np.random.default_rng(seed)
    means = own[rng.integers(len(own), size=(draws, len(own)))].mean(axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(own.mean()), float(low), float(high))


def t_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean of few independent numbers (one a seed) with Student's interval.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy import stats

    own = np.asarray(values, dtype=float)
    if len(own) < 2:
        raise ValueError(f"t_interval: got {len(own)} values; needs two or more; run more seeds")
    half = float(stats.t.ppf((1 + confidence) / 2, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5)
    return Interval(float(own.mean()), float(own.mean()) - half, float(own.mean()) + half)


class Calibration(NamedTuple):
    """Confidence against accuracy: per bin the mean of both and how many, and their mean distance."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    answers: NDArray[np.int64]
    error: float


def calibration(confidence: ArrayLike, is_right: ArrayLike, bins: int = 10) -> Calibration:
    """Sort answers into bins of confidence (probability that the policy gave its answer), hold against truth.

    `error` is the expected calibration error: the distance of the two, weighted by count. Empty bins are
    left out.
    """
    c, r = np.asarray(confidence, dtype=float), np.asarray(is_right, dtype=float)
    place = np.minimum((c * bins).astype(int), bins - 1)
    used = [b for b in range(bins) if (place == b).any()]
    mean_c = np.array([c[place == b].mean() for b in used])
    mean_r = np.array([r[place == b].mean() for b in used])
    count = np.array([(place == b).sum() for b in used])
    error = float((count * np.abs(mean_c - mean_r)).sum() / len(c))
    return Calibration(mean_c, mean_r, count, error)
