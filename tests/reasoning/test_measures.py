"""Measures against counting, and intervals against what they promise."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.reasoning.measures import (
    bootstrap,
    calibration,
    majority,
    majority_at_k,
    mean_pass_at_k,
    pass_at_k,
    t_interval,
)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    answers = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(answers, k))
    assert pass_at_k(c, n, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_survives_large_numbers_and_refuses_nonsense():
    assert pass_at_k(1, 100_000, 50_000) == pytest.approx(0.5)
    assert mean_pass_at_k([[True, False], [False, False]], 1).tolist() == [0.5, 0.0]
    for wrong in ((3, 2, 1), (1, 2, 3), (0, 2, 0)):
        with pytest.raises(ValueError, match="draw more answers"):
            pass_at_k(*wrong)


def test_the_majority_wins_ties_go_to_the_first_and_no_answer_never_wins():
    assert majority(["b", "a", "a", None, None, None]) == "a"
    assert majority(["b", "a"]) == "b" and majority([None]) is None
    table = [["1", "2", "2", "2"], ["1", None, None, None]]
    checks = [lambda a: a == "2", lambda a: a == "1"]
    assert majority_at_k(table, checks, 4).tolist() == [1.0, 1.0]
    assert majority_at_k(table, checks, 1, subsets=4000)[0] == pytest.approx(0.75, abs=0.03)


def test_problems_and_not_answers_are_what_the_interval_counts():
    """Sixteen equal answers a problem: as wide as one answer a problem, four times what 16·p would give."""
    rng = np.random.default_rng(0)
    truth = rng.random(50) < 0.6
    narrow = bootstrap(np.repeat(truth, 16).astype(float))
    honest = bootstrap(np.repeat(truth[:, None], 16, axis=1).mean(axis=1))
    assert (honest.high - honest.low) / (narrow.high - narrow.low) == pytest.approx(4, rel=0.15)
    assert honest.low < truth.mean() < honest.high


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = [
        (interval := bootstrap(rng.random(60) < 0.5, draws=300)).low <= 0.5 <= interval.high
        for _ in range(300)
    ]
    assert 0.90 < np.mean(held) < 0.99
    held = [(i := t_interval(rng.normal(size=3))).low <= 0 <= i.high for _ in range(2000)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_calibration_is_zero_for_a_calibrated_guesser_and_the_gap_for_a_boaster():
    draw = random.Random(0)
    sure = [draw.random() for _ in range(20_000)]
    honest = calibration(sure, [draw.random() < p for p in sure])
    assert honest.error < 0.02 and honest.answers.sum() == 20_000
    assert calibration([0.95] * 10, [True] * 5 + [False] * 5).error == pytest.approx(0.45)


def test_empty_measures_are_refused():
    with pytest.raises(ValueError, match="one number a problem"):
        bootstrap([])
    with pytest.raises(ValueError, match="more seeds"):
        t_interval([1.0])
