"""Packing whole matrices onto ranks, against all ways of packing a few."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.model import Transformer
from workbench.training.parameter_groups import parameter_groups
from workbench.training.zero_buckets import dense_matrices, pack


@given(sizes=st.lists(st.integers(1, 50), min_size=3, max_size=7), ranks=st.integers(1, 3))
def test_within_four_thirds_of_the_best(sizes, ranks):
    buckets = pack(sizes, ranks)
    assert sorted(i for rank in buckets.ranks for i in rank) == list(range(len(sizes)))
    best = min(
        max(sum(s for s, r in zip(sizes, choice, strict=True) if r == rank) for rank in range(ranks))
        for choice in itertools.product(range(ranks), repeat=len(sizes))
    )
    assert best <= max(buckets.loads) <= 4 / 3 * best


def test_padding_of_a_small_case():
    buckets = pack([6, 5, 4, 3], 2)
    assert sorted(buckets.loads) == [9, 9]
    assert buckets.padding == 0
    assert buckets.most_matrices == 2
    assert pack([8, 1, 1], 2).padding == pytest.approx(16 / 10 - 1)


@given(sizes=st.lists(st.integers(1, 50), min_size=3, max_size=12), most=st.integers(1, 4))
def test_no_rank_gets_more_than_asked(sizes, most):
    ranks = -(-len(sizes) // most)
    buckets = pack(sizes, ranks, most)
    assert sorted(i for rank in buckets.ranks for i in rank) == list(range(len(sizes)))
    assert buckets.most_matrices <= most


def test_a_cap_spreads_the_small_ones():
    sizes = [9, 9, 1, 1, 1, 1, 1, 1]
    assert pack(sizes, 3).most_matrices == 6
    assert sorted(map(len, pack(sizes, 3, 3).ranks)) == [2, 3, 3]


def test_dense_matrices_are_muons():
    config = wb.load_config("tiny")
    model = Transformer(config, generator=None)
    muon = {name for group in parameter_groups(model)[0] for name in group["names"]}
    routed = {name for name in muon if ".mlp.experts." in name}
    ours = {name.removesuffix(".weight") for name in dense_matrices(config)}
    assert ours == {name.removesuffix(".weight") for name in muon - routed}


def test_more_ranks_than_matrices_are_refused():
    with pytest.raises(ValueError, match=r"^pack: got ranks=4 for 3 matrices"):
        pack([1, 2, 3], 4)
    with pytest.raises(ValueError, match=r"^pack: got 3 matrices for 1 ranks of at most 2"):
        pack([1, 2, 3], 1, 2)
