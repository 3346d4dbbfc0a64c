"""Expert placement: conserved work, balls and bins, and copies that even ranks out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.chips.placement import chosen, imbalance, popularity, rank_loads


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.integers(0, 99))
def test_no_work_is_lost_and_ranks_hold_equally_many(ranks, places, extra, seed):
    random = np.random.default_rng(seed)
    spare = min(extra * ranks, (places - 1) * ranks)
    n_experts = ranks * places - spare
    loads = random.integers(0, 50, n_experts).astype(float)
    work = rank_loads(loads, ranks, expected=random.random(n_experts) + 0.1, spare=spare)
    assert work.shape == (ranks,) and work.sum() == pytest.approx(loads.sum())
    if not spare:
        assert rank_loads(loads, ranks).sum() == loads.sum()


def test_experts_in_order_are_neighbours():
    assert rank_loads(np.array([1.0, 2, 3, 4, 5, 6]), 3).tolist() == [3, 7, 11]


def test_a_copy_halves_the_busiest_and_packing_pairs_heavy_with_light():
    loads = np.array([8.0, 1, 1, 4, 1, 1])
    # Two ranks of three: 8 with the two lightest against the rest, 10 to 6.
    assert sorted(rank_loads(loads, 2, expected=loads)) == [6, 10]
    # Both copies go to the 8 (its half ties with the 4): thirds are packed, 4 + 8/3 + 1 + 1 to the rest.
    assert sorted(rank_loads(loads, 2, expected=loads, spare=2)) == pytest.approx([22 / 3, 26 / 3])


def test_tokens_choose_distinct_experts_in_proportion_to_popularity():
    random = np.random.default_rng(0)
    counts = chosen(40_000, 1, np.array([1.0, 2, 5]), random)
    assert counts / 40_000 == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)
    counts = chosen(40_000, 2, np.array([1.0, 2, 5]), random)
    # Of the first by its weight, or second after another: 1/8 + 2/8·1/6 + 5/8·1/3.
    assert counts[0] / 40_000 == pytest.approx(1 / 8 + 2 / 8 / 6 + 5 / 8 / 3, abs=0.01)
    assert chosen(7, 3, np.ones(3), random).tolist() == [7, 7, 7]


def test_popularity_has_the_spread_asked_for():
    drawn = popularity(200_000, 0.8, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(1) and np.log(drawn).std() == pytest.approx(0.8, rel=0.01)
    assert popularity(5, 0.0, np.random.default_rng(1)).tolist() == [1] * 5


def test_many_alike_tokens_are_even_and_few_are_as_balls_and_bins_say():
    assert imbalance(20_000, 16, 2, 4, 0.0).max() < 1.05
    # One token, one expert of 16, on four ranks: the busiest has all of it.
    assert imbalance(1, 16, 1, 4, 0.0).tolist() == [4.0] * 8
    # Largest of n fair bins with m balls each: about 1 + sqrt(2 ln n / m).
    assert imbalance(6400, 64, 1, 64, 0.0, draws=32).mean() == pytest.approx(
        1 + math.sqrt(2 * math.log(64) / 100), abs=0.06
    )


def test_copies_placed_by_popularity_even_out_skew():
    plain = imbalance(4096, 64, 4, 8, 1.0, draws=6).mean()
    packed = imbalance(4096, 64, 4, 8, 1.0, spare=0, draws=6).mean()
    copied = imbalance(4096, 64, 4, 8, 1.0, spare=16, draws=6).mean()
    assert plain > packed > copied and copied < 1.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="topk is 4"):
        chosen(3, 4, np.ones(3), np.random.default_rng(0))
    with pytest.raises(ValueError, match="7 experts and 0 copies do not fill 2 ranks evenly; use 1 copies"):
        rank_loads(np.ones(7), 2)
