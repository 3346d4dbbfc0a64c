"""The rating estimator against enumeration, drawing one by one, and Elo's own arithmetic."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.report.contest_rating import (
    Contest,
    chance,
    draw_totals,
    hold_contest,
    independent_tries,
    rate,
    rated_contests,
    tries_until_right,
)


@pytest.mark.parametrize(("correct", "samples", "submitted"), [(0, 5, 3), (2, 5, 3), (3, 5, 5), (5, 5, 1)])
def test_tries_are_those_of_every_order_of_the_answers(correct, samples, submitted):
    answers = [True] * correct + [False] * (samples - correct)
    counted = np.zeros(submitted + 1)
    for order in itertools.permutations(answers):
        tried = order[:submitted]
        counted[tried.index(True) if True in tried else submitted] += 1
    np.testing.assert_allclose(tries_until_right(correct, samples, submitted), counted / counted.sum())


@given(samples=st.integers(1, 40), success=st.floats(0, 1), data=st.data())
def test_drawing_without_replacement_is_fair_whatever_the_chance_of_a_right_answer(samples, success, data):
    submitted = data.draw(st.integers(1, samples))
    counts = [math.comb(samples, k) * success**k * (1 - success) ** (samples - k) for k in range(samples + 1)]
    expected = sum(n * tries_until_right(k, samples, submitted) for k, n in enumerate(counts))
    np.testing.assert_allclose(expected, independent_tries(np.array([success]), submitted)[0], atol=1e-12)


def test_drawing_with_replacement_would_not_be_fair():
    # A hundred drawings from two answers never make a third: the identity above can fail.
    with_replacement = sum(
        0.5**4 * math.comb(4, k) * independent_tries(np.array([k / 4]), 2)[0] for k in range(5)
    )
    assert np.abs(with_replacement - independent_tries(np.array([0.5]), 2)[0]).max() > 0.05


def small_contest(ratings=(1500.0, 2000.0, 2500.0)) -> Contest:
    worth = np.array([[100.0, 50.0, 0.0], [300.0, 200.0, 0.0]])
    return Contest(np.array([1800.0, 2200.0]), worth, np.array([100.0, 200.0, 400.0]), np.array(ratings))


def test_a_performance_is_the_rating_that_expects_this_many_better_people():
    contest = small_contest()
    for total, better in [(150.0, 2), (200.0, 1.5), (300.0, 1), (500.0, 0.5)]:
        rating = contest.performance(np.array([total]))[0]
        expected = sum(float(chance(r, np.array(rating))) for r in contest.ratings)
        assert expected == pytest.approx(better, abs=0.02)
    assert contest.performance(np.array([500.0])) > contest.performance(np.array([300.0]))


def test_totals_follow_the_chances_of_each_problem():
    contest, rng = small_contest(), np.random.default_rng(0)
    tries = np.array([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]])
    totals = draw_totals(contest, tries, rng, 40_000)
    assert set(totals) == {a + b for a in (100.0, 50.0, 0.0) for b in (300.0, 0.0)}
    assert totals.mean() == pytest.approx((contest.worth * tries).sum(), abs=1.5)


def test_stronger_models_are_rated_higher_and_the_ways_agree_on_average():
    rows = rated_contests((2300, 3000), 60, np.random.default_rng(1))
    weak, strong = ([row for row in rows if row["strength"] == s] for s in (2300, 3000))
    assert np.mean([row["drawn"] for row in strong]) > np.mean([row["drawn"] for row in weak]) + 300
    gap = np.array([row["drawn"] - row["fair"] for row in strong])
    assert abs(gap.mean()) < 3 * gap.std() / math.sqrt(len(gap))


def test_the_same_generator_gives_the_same_contest():
    one, two = (hold_contest(np.random.default_rng(3)) for _ in range(2))
    assert (one.totals == two.totals).all() and (one.worth == two.worth).all()
    assert (np.diff(one.totals) >= 0).all() and (one.worth[:, -1] == 0).all()
    assert rate(one, 2800, np.random.default_rng(4)) == rate(two, 2800, np.random.default_rng(4))


@pytest.mark.parametrize("arguments", [(-1,), (33,), (3, 4, 5), (3, 4, 0)])
def test_impossible_counts_are_refused(arguments):
    with pytest.raises(ValueError, match="tries_until_right: got"):
        tries_until_right(*arguments)


def test_a_contest_needs_problems_and_people():
    with pytest.raises(ValueError, match="hold_contest: got 0 problems"):
        hold_contest(np.random.default_rng(0), problems=0)
