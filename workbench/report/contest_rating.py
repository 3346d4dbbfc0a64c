"""A rating from programming contests that a model never entered: is the estimate fair, and how sure?

Report: section 5.3.1. Each problem gets 32 answers; 10 are drawn without replacement, in random order,
and submitted until one is right. A right answer scores what the median human scored who solved the
problem after as many failures. The total has a rank among the humans, the rank a rating.

The contests here are synthetic: humans, problems and the model have strengths on one scale, and a try
succeeds as Elo's formula says.

Axes: q problems, n people, j failures before the first success, last entry: never solved.
Source: A. E. Elo, "The Rating of Chessplayers" (1978); M. Mirzayanov, "Open Codeforces Rating System"
(2015), for the rank that a rating expects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAMPLES, SUBMITTED = 32, 10
# Codeforces takes 50 points a failure, and a right answer keeps three tenths of the problem's points.
FAILURE_POINTS, KEPT = 50.0, 0.3
_RATINGS = np.arange(0.0, 5001.0, 20.0)


def tries_until_right(correct: int, samples: int = SAMPLES, submitted: int = SUBMITTED) -> Floats:
    """How likely the first success comes after j failures, and last how likely it never comes.

    `correct` of `samples` answers are right; `submitted` of them are drawn without replacement.
    Shapes: -> (submitted + 1,), sum 1.

    Raises:
        ValueError: not 0 <= correct <= samples, or not 1 <= submitted <= samples.
    """
    if not 0 <= correct <= samples or not 1 <= submitted <= samples:
        raise ValueError(
            f"tries_until_right: got {correct} right of {samples}, {submitted} submitted; it needs "
            f"0 <= right <= samples and 1 <= submitted <= samples"
        )
    wrong = samples - correct
    chances = [
        math.comb(wrong, j) / math.comb(samples, j) * correct / (samples - j) for j in range(submitted)
    ]
    return np.array([*chances, math.comb(wrong, submitted) / math.comb(samples, submitted)])


def independent_tries(success: Floats, submitted: int = SUBMITTED) -> Floats:
    """The same chances where each try succeeds on its own, as for somebody who really takes part.

    Shapes: success (q,) -> (q, submitted + 1).
    """
    fails = (1 - success)[:, None] ** np.arange(submitted + 1)
    return np.hstack([fails[:, :-1] * success[:, None], fails[:, -1:]])


def chance(strength: Floats | float, difficulty: Floats) -> Floats:
    """Elo: how likely a strength overcomes a difficulty; 400 points are ten to one."""
    return 1 / (1 + 10.0 ** ((difficulty - strength) / 400))


@dataclass(frozen=True)
class Contest:
    """One synthetic contest: its problems, its field, and what a right answer is worth.

    Shapes: difficulty (q,); worth (q, submitted + 1), the last column 0; totals, ratings (n,), both rising.
    """

    difficulty: Floats
    worth: Floats
    totals: Floats
    ratings: Floats

    def performance(self, totals: Floats) -> Floats:
        """The rating whose expected number of better people is the number that is better.

        Departs: Codeforces counts from rank 1, which nobody's rating expects when all others are
        worse. Here equal totals count half and at least half a person is better, so a winner's rating
        is finite.
        """
        above = len(self.totals) - np.searchsorted(self.totals, totals, side="right")
        equal = len(self.totals) - above - np.searchsorted(self.totals, totals, side="left")
        better = np.maximum(above + equal / 2, 0.5)
        return np.interp(-better, -self._expected_better, _RATINGS)

    @cached_property
    def _expected_better(self) -> Floats:
        return chance(self.ratings, _RATINGS[:, None]).sum(1)


def hold_contest(rng: np.random.Generator, problems: int = 8, people: int = 800) -> Contest:
    """Draw a contest of the first division: problems from easy to hopeless, people from 1900 up.

    Raises:
        ValueError: no problems, or fewer than 20 people: a median needs some.
    """
    if problems < 1 or people < 20:
        raise ValueError(
            f"hold_contest: got {problems} problems and {people} people; it needs 1 and 20 at least"
        )
    ratings = np.sort(1900 + rng.gamma(1.6, 230, people))
    difficulty = np.sort(rng.uniform(1500, 3500, problems) + rng.normal(0, 120, problems))
    points = 250.0 * np.round(np.linspace(2, 14, problems))
    success = chance(ratings[:, None], difficulty)
    failures = rng.geometric(np.maximum(success, 1e-6)) - 1
    # Somebody far stronger than the problem is done with it early.
    minutes = 120 * rng.beta(2, 2 + 6 * success)
    score = np.maximum(KEPT * points, points * (1 - minutes / 250) - FAILURE_POINTS * failures)
    score[failures >= SUBMITTED] = 0
    worth = np.stack([_worth(score[:, i], failures[:, i], points[i]) for i in range(problems)])
    return Contest(difficulty, worth, np.sort(score.sum(1)), ratings)


def _worth(score: Floats, failures: NDArray[np.int64], points: float) -> Floats:
    """Median human score after j failures; where under five people tell, the one before less the penalty."""
    worth, last = [], 0.7 * points
    for j in range(SUBMITTED):
        mine = score[failures == j]
        last = float(np.median(mine)) if len(mine) >= 5 else max(KEPT * points, last - FAILURE_POINTS)
        worth.append(last)
    return np.array([*worth, 0.0])


def draw_totals(contest: Contest, tries: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """Totals of `draws` participations, each problem's failures drawn by its chances.

    Shapes: tries (q, submitted + 1) -> (draws,).
    """
    picked = (rng.random((draws, len(tries), 1)) > tries.cumsum(1)[:, :-1]).sum(2)
    return contest.worth[np.arange(len(tries)), picked].sum(1)


def rate(contest: Contest, strength: float, rng: np.random.Generator, draws: int = 200) -> dict[str, float]:
    """One contest rated three ways: really taking part, by the report's draws, and by the mean score.

    `fair` draws every try anew. `drawn` has 32 answers a problem and is the mean rating of many
    drawings of 10. `of_mean` is the rating of those drawings' expected score.
    """
    success = chance(strength, contest.difficulty)
    tries = np.stack([tries_until_right(int(c)) for c in rng.binomial(SAMPLES, success)])
    fair = contest.performance(draw_totals(contest, independent_tries(success), rng, draws))
    drawn = contest.performance(draw_totals(contest, tries, rng, draws))
    mean_total = np.array([(contest.worth * tries).sum()])
    return {
        "fair": float(fair.mean()),
        "drawn": float(drawn.mean()),
        "of_mean": float(contest.performance(mean_total)[0]),
    }


def rated_contests(
    strengths: Sequence[float], contests: int, rng: np.random.Generator, draws: int = 200
) -> list[dict[str, float]]:
    """Models of several strengths on the same synthetic contests, one row a model and contest.

    -> {"contest", "strength", "fair", "drawn", "of_mean"}, the last three as `rate` says.
    """
    return [
        {"contest": number, "strength": strength, **rate(contest, strength, rng, draws)}
        for number, contest in enumerate(hold_contest(rng) for _ in range(contests))
        for strength in strengths
    ]
