"""Which rows an n-gram looks up, by loops and by what the release prints; and what they write."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import v41_layer as oracle
from tests.oracles.v41_small import small_config, small_model
from workbench.model.v41 import load_v41
from workbench.model.v41.engram import Engram
from workbench.model.v41.ngrams import NOTHING, compressed_ids, look_back, normalised, table_primes

C = small_config()


def test_the_published_tables_have_the_published_rows():
    first, second = table_primes(load_v41())
    assert (first.sum(), second.sum()) == (384_006_168, 384_016_682)
    assert (first[0, 0], second[-1, -1]) == (16_000_057, 16_000_889)
    assert len({*first.flat, *second.flat}) == 48


def test_primes_are_those_of_a_sieve():
    ours = [int(p) for module in table_primes(C) for p in module.flat]
    assert ours == oracle.sieve(C.engram_vocab_size, len(ours))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(0, 1))
def test_rows_are_those_of_the_written_rule(ids, module):
    """60 is a picture's id: nothing before it is seen behind it."""
    engram = Engram(C, C.engram_layer_ids[module])
    line = torch.tensor([[NOTHING if i == C.image_token_id else i for i in ids]])
    rows = engram.rows(look_back(line, C.engram_max_ngram_size, C.engram_pad_id))
    expected = [oracle.rows_of(ids, t, C, module) for t in range(len(ids))]
    kept = [t for t, i in enumerate(ids) if i != C.image_token_id]
    assert rows.flatten(2)[0, kept].tolist() == [expected[t] for t in kept]
    assert int(rows.max()) < engram.embedding.num_embeddings


def test_large_ids_do_not_overflow_the_hash():
    config = load_v41()
    ids = [99_091, 99_090, 0, 99_091, 45_678]
    with torch.device("meta"):
        engram = Engram(config, 14)
    primes, factors = table_primes(config)[1], oracle.np.random.default_rng(10007 * 14)
    bound = (2**63 - 1) // 99_092 // 2
    engram.primes = torch.tensor(primes)
    engram.factors = torch.tensor([2 * int(r) + 1 for r in factors.integers(0, bound, 4)])
    rows = engram.rows(look_back(torch.tensor([ids]), 4, 2))
    assert rows[0, -1].flatten().tolist() == oracle.rows_of(ids, 4, config, 1)


def test_no_ngram_reaches_into_another_sample():
    ids, samples = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[0, 0, 1, 1, 1]])
    seen = look_back(ids, 4, 2, samples)
    alone = [look_back(part, 4, 2) for part in ids.split([2, 3], dim=1)]
    torch.testing.assert_close(seen, torch.cat(alone, dim=1))
    assert seen[0].tolist() == [[5, 2, 2, 2], [6, 5, 2, 2], [7, 2, 2, 2], [8, 7, 2, 2], [9, 8, 7, 2]]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" The", "the"),
        ("THE", "the"),
        ("É\t\n x ", "e x"),
        ("ﬁ", "fi"),
        ("Å", "a"),
        (" ", " "),
        ("  \n", " "),
        ("\uff11", "1"),
    ],
)
def test_texts_are_normalised(text, plain):
    assert normalised(text) == plain


def test_equal_texts_share_an_id_and_parts_of_characters_share_none():
    assert compressed_ids(["a", " A", None, "b", None, "á", "", "   "]) == [0, 0, 1, 2, 3, 0, 4, 5]


def test_words_that_differ_in_case_read_the_same_memory():
    vocabulary = [chr(97 + i % 26) if i < 26 else chr(65 + i % 26) if i < 52 else None for i in range(61)]
    model, generator = small_model(vocabulary=vocabulary)
    lower = torch.randint(26, (1, 9), generator=generator)
    ngrams = [model.model.begin(ids)[1].ngrams for ids in (lower, lower + 26)]
    assert torch.equal(*ngrams)
    assert not torch.equal(ngrams[0], model.model.begin(lower.flip(1))[1].ngrams)


def test_a_masked_token_receives_nothing_and_others_do(rand):
    engram = Engram(C, 1)
    streams, ngrams = rand(1, 4, C.hc_mult, C.hidden_size), torch.arange(16).view(1, 4, 4)
    mask = torch.tensor([[False, True, False, True]])
    written = engram(streams, ngrams, mask)
    assert torch.equal(written[mask], streams[mask])
    assert not torch.isclose(written[~mask], streams[~mask]).any()


def test_the_gate_has_a_finite_slope_where_nothing_agrees(rand):
    engram = Engram(C, 1)
    torch.nn.init.zeros_(engram.q_weight)
    streams = rand(1, 2, C.hc_mult, C.hidden_size).requires_grad_()
    gates, _ = engram.recall(streams, torch.arange(8).view(1, 2, 4))
    gates.sum().backward()
    assert torch.isfinite(streams.grad).all()
    torch.testing.assert_close(gates, torch.full_like(gates, 0.5), atol=1e-3, rtol=0)
