"""The choice of the largest scores, folded and plain."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.model.indexer import largest


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 400), st.integers(0, 2**31), st.booleans())
def test_the_largest_are_those_of_topk_at_places_that_hold_them(k, more, seed, has_ties):
    scores = torch.randn(2, 3, k + more, generator=torch.Generator().manual_seed(seed))
    if has_ties:
        scores = scores.round()
    scores[..., more // 2 :: 3] = -torch.inf  # hidden
    values, places = largest(scores, k)
    assert torch.equal(values.sort(-1).values, scores.topk(k).values.sort(-1).values)
    assert torch.equal(scores.gather(-1, places), values)
    assert all(len(set(row.tolist())) == k for row in places.flatten(0, 1))
