"""A corpus is split by document, the same in every run, and read back as it was written."""

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.model.tokenizer import Tokenizer
from workbench.training.corpus import load_corpus

WORDS = "house garden river stone winter summer letter window table bread".split()
TEXTS = [
    f"the {word} stood beside the {word} and said: {word * 3} ünï {n}\n" * (3 + n % 5)
    for n, word in enumerate(WORDS)
]
SIZE = 330


def decoded(corpus, documents):
    return [corpus.tokenizer.decode(document[1:-1]) for document in documents]


def test_every_text_is_on_one_side_and_comes_back():
    corpus = load_corpus(SIZE, texts=[*TEXTS, "", TEXTS[0]], held_out_share=0.2)
    train, held_out = decoded(corpus, corpus.train), decoded(corpus, corpus.held_out)
    assert sorted(train + held_out) == sorted(TEXTS)
    assert corpus.held_out_bytes == sum(len(text.encode()) for text in held_out)
    begin, end = corpus.tokenizer.bos_token_id, corpus.tokenizer.eos_token_id
    assert all((d[0], d[-1]) == (begin, end) for d in corpus.train + corpus.held_out)


def test_the_smallest_hashes_are_held_out():
    corpus = load_corpus(SIZE, texts=TEXTS, held_out_share=0.2)
    order = sorted(TEXTS, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    held_out = decoded(corpus, corpus.held_out)
    assert held_out == order[: len(held_out)]
    share = sum(map(len, held_out)) / sum(map(len, TEXTS))
    without_last = sum(map(len, held_out[:-1])) / sum(map(len, TEXTS))
    assert without_last < 0.2 <= share


def test_the_tokenizer_has_not_read_the_held_out_texts():
    corpus = load_corpus(SIZE, texts=TEXTS, held_out_share=0.3)
    alone = Tokenizer.train(decoded(corpus, corpus.train), SIZE)
    assert [alone.encode(text) for text in TEXTS] == [corpus.tokenizer.encode(text) for text in TEXTS]
    other = Tokenizer.train(TEXTS, SIZE)
    assert [other.encode(text) for text in TEXTS] != [corpus.tokenizer.encode(text) for text in TEXTS]


@settings(max_examples=10, deadline=None)
@given(st.permutations(TEXTS))
def test_order_does_not_matter(texts):
    one, other = (load_corpus(SIZE, texts=t, held_out_share=0.2) for t in (TEXTS, texts))
    assert (one.train, one.held_out) == (other.train, other.held_out)


def test_a_cached_corpus_is_the_same_and_is_not_built_again(tmp_path, monkeypatch):
    first = load_corpus(SIZE, texts=TEXTS, cache=tmp_path)
    monkeypatch.setattr(Tokenizer, "train", None)  # building would fail now
    second = load_corpus(SIZE, texts=TEXTS[::-1], cache=tmp_path)
    assert (first.train, first.held_out, first.held_out_bytes) == (
        second.train, second.held_out, second.held_out_bytes
    )  # fmt: skip
    assert second.tokenizer.encode(TEXTS[3]) == first.tokenizer.encode(TEXTS[3])
    assert [path.suffix for path in tmp_path.iterdir()] == [""]


def test_what_it_depends_on_names_the_cache(tmp_path):
    for size, texts, share in ((SIZE, TEXTS, 0.05), (SIZE + 1, TEXTS, 0.05), (SIZE, TEXTS[1:], 0.05),
                               (SIZE, TEXTS, 0.3)):  # fmt: skip
        load_corpus(size, texts=texts, held_out_share=share, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_cache_is_refused(tmp_path):
    load_corpus(SIZE, texts=TEXTS, cache=tmp_path)
    file = next(tmp_path.glob("*/tokens.safetensors"))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"^load_corpus: .* is damaged .* remove that folder"):
        load_corpus(SIZE, texts=TEXTS, cache=tmp_path)


def test_bits_per_byte_of_a_guess_among_all_bytes():
    corpus = load_corpus(SIZE, texts=TEXTS, held_out_share=0.2)
    predicted = sum(len(d) - 1 for d in corpus.held_out)
    nats_a_token = math.log(256) * corpus.held_out_bytes / predicted
    assert corpus.bits_per_byte(nats_a_token) == pytest.approx(8)


@pytest.mark.parametrize(
    ("texts", "share"), [([], 0.1), (["", ""], 0.1), (["one", "one"], 0.1), (TEXTS, 0.0), (TEXTS, 1.0)]
)
def test_a_corpus_that_cannot_be_split_is_refused(texts, share):
    with pytest.raises(ValueError, match=r"^load_corpus: got .*needs at least 2"):
        load_corpus(SIZE, texts=texts, held_out_share=share)
