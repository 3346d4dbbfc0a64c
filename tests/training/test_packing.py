"""Packing keeps every token once; best fit cuts only what is longer than a row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.training.packing import best_fit, cut_everywhere, cut_share, padding_share

LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=40)


@pytest.mark.parametrize("pack", [best_fit, cut_everywhere])
@given(lengths=LENGTHS, row_tokens=st.integers(1, 40))
def test_every_token_lies_in_one_row_and_no_row_overflows(pack, lengths, row_tokens):
    rows = pack(lengths, row_tokens)
    seen = [(p.document, token) for row in rows for p in row for token in range(p.begin, p.end)]
    assert sorted(seen) == [(d, token) for d, length in enumerate(lengths) for token in range(length)]
    assert all(0 < sum(p.end - p.begin for p in row) <= row_tokens for row in rows)


@given(lengths=LENGTHS)
def test_best_fit_cuts_no_document_that_fits(lengths):
    rows = best_fit(lengths, 40)
    if min(lengths) <= 40:
        assert cut_share(rows, lengths, 40) == 0
    # At most one row can stay half empty: two such would have been one.
    used = [sum(p.end - p.begin for p in row) for row in rows]
    assert sum(2 * u <= 40 for u in used) <= 1


@given(lengths=LENGTHS, row_tokens=st.integers(1, 40))
def test_the_baseline_pads_its_last_row_only(lengths, row_tokens):
    rows = cut_everywhere(lengths, row_tokens)
    missing = -sum(lengths) % row_tokens
    assert padding_share(rows, row_tokens) == pytest.approx(missing / (len(rows) * row_tokens))


def test_a_small_case():
    # 5 | 4 + 3 with room for 1 | 2 with room for 6, not 3 + 5.
    assert [[p.document for p in row] for row in best_fit([3, 8, 4, 5, 2], 8)] == [[1], [3, 0], [2, 4]]
    assert cut_share(cut_everywhere([3, 8, 4, 5, 2], 8), [3, 8, 4, 5, 2], 8) == 0.4


def test_bad_input_is_refused():
    for lengths, row_tokens in (([], 8), ([3, 0], 8), ([3], 0)):
        with pytest.raises(ValueError, match=r"^packing: got"):
            best_fit(lengths, row_tokens)
    with pytest.raises(ValueError, match=r"^cut_share: all 1 documents are longer than row_tokens=2"):
        cut_share(best_fit([3], 2), [3], 2)
