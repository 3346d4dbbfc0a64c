"""Which expert lies where: how much more the busiest rank has to do than the mean, and what copies help.

Popularity of experts is log-normal; tokens choose distinct experts by it. Copies of the most loaded experts
and packing by weight even the ranks out, as DeepSeek's load balancer does for known popularity.

Source: V3 report (arXiv 2412.19437), section 3.4 (redundant experts); the rule here is our own.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def popularity(n_experts: int, skew: float, random: np.random.Generator) -> Floats:
    """Relative popularity with mean 1; `skew` is the standard deviation of its logarithm.

    Shapes: -> (e,).
    """
    drawn = np.exp(skew * random.standard_normal(n_experts))
    return np.asarray(drawn / drawn.mean(), dtype=np.float64)


def chosen(n_tokens: int, topk: int, weights: Floats, random: np.random.Generator) -> Floats:
    """How many of `n_tokens` choose each expert; a token's choices are distinct.

    Shapes: weights (e,) -> (e,).
    Raises:
        ValueError: topk is not from 1 to the number of experts.
    """
    if not 1 <= topk <= len(weights):
        raise ValueError(
            f"chosen: topk is {topk}; it must lie in [1, {len(weights)}], the experts there are; change it"
        )
    # The k largest of log-weights plus Gumbel noise are a draw of k without replacement.
    scores = np.log(weights) + random.gumbel(size=(n_tokens, len(weights)))
    picks = np.argpartition(-scores, topk - 1)[:, :topk].ravel()
    return np.bincount(picks, minlength=len(weights)).astype(np.float64)


def rank_loads(loads: Floats, ranks: int, *, expected: Floats | None = None, spare: int = 0) -> Floats:
    """Work of each rank. Without `expected` experts lie in order, as a release numbers them.

    With it, `spare` copies in all go to the experts that are expected to be busiest, each copy taking an
    equal part, and all copies are packed onto ranks with equally many places, the heaviest first.

    Shapes: loads, expected (e,) -> (ranks,).
    Raises:
        ValueError: experts and copies do not fill the ranks evenly.
    """
    if (len(loads) + spare) % ranks:
        raise ValueError(
            f"rank_loads: {len(loads)} experts and {spare} copies do not fill {ranks} ranks evenly; use "
            f"{-len(loads) % ranks} copies or more"
        )
    if expected is None:
        return loads.reshape(ranks, -1).sum(axis=1)
    copies = np.ones(len(loads))
    for _ in range(spare):
        copies[np.argmax(expected / copies)] += 1
    each = np.repeat(np.arange(len(loads)), copies.astype(int))
    places = (len(loads) + spare) // ranks
    total, planned = np.zeros(ranks), [(0.0, rank, places) for rank in range(ranks)]
    for expert in sorted(each, key=lambda e: -expected[e] / copies[e]):
        load, rank, free = heapq.heappop(planned)
        total[rank] += loads[expert] / copies[expert]
        if free > 1:
            heapq.heappush(planned, (load + expected[expert] / copies[expert], rank, free - 1))
    return total


def imbalance(
    n_tokens: int, n_experts: int, topk: int, ranks: int, skew: float, *, spare: int | None = None,
    draws: int = 8, seed: int = 0,
) -> Floats:  # fmt: skip
    """Work of the busiest rank over the mean, once for each of `draws` popularities.

    spare: None for experts in order, else the number of copies, placed by the true popularity.

    Shapes: -> (draws,).
    """
    found = []
    for draw in range(draws):
        # The popularity of a draw is the same whatever the tokens and ranks: curves compare like with like.
        weights = popularity(n_experts, skew, np.random.default_rng([seed, draw]))
        random = np.random.default_rng([seed, draw, n_tokens])
        loads = chosen(n_tokens, topk, weights, random)
        known = None if spare is None else weights
        work = rank_loads(loads, ranks, expected=known, spare=spare or 0)
        found.append(work.max() / work.mean())
    return np.array(found)
