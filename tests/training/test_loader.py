"""The stream of rows depends on seed and place alone."""

import pytest
import torch

from workbench.training.loader import Loader

DOCUMENTS = [[10 + d] * n for d, n in enumerate([3, 8, 4, 5, 2, 7, 1])]


def test_a_row_holds_samples_then_padding():
    loader = Loader(DOCUMENTS, 8, seed=0)
    for ids, samples, labels in zip(*loader.rows, strict=True):
        is_token = labels != -100
        assert is_token.tolist() == sorted(is_token.tolist(), reverse=True)
        assert torch.equal(labels[is_token], ids[is_token])
        # Each sample is one document here, and the padding is a sample of its own.
        pairs = set(zip(samples[is_token].tolist(), ids[is_token].tolist(), strict=True))
        assert len({s for s, _ in pairs}) == len({d for _, d in pairs}) == len(pairs)
        assert not set(samples[~is_token].tolist()) & {s for s, _ in pairs}


def test_every_epoch_has_every_row_once_in_its_own_order():
    loader = Loader(DOCUMENTS, 8, seed=0)
    n = len(loader)
    epochs = [loader.take(n).input_ids.tolist() for _ in range(8)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert any(epoch != epochs[0] for epoch in epochs)


def test_grouping_does_not_change_the_stream_and_a_place_can_be_set():
    one, other = Loader(DOCUMENTS, 8, seed=3), Loader(DOCUMENTS, 8, seed=3)
    whole = one.take(11).input_ids
    assert torch.equal(torch.cat([other.take(n).input_ids for n in (1, 4, 6)]), whole)
    other.position = 5
    assert torch.equal(other.take(6).input_ids, whole[5:])
    assert not torch.equal(Loader(DOCUMENTS, 8, seed=4).take(11).input_ids, whole)


def test_labels_go_where_their_tokens_go():
    labels = [[i if i % 3 else -100 for i in range(len(d))] for d in DOCUMENTS]
    loader = Loader(DOCUMENTS, 5, seed=0, labels=labels)
    # Every document is cut into rows of 5 and a rest, each found again by its token and its number there.
    found = sorted(
        (int(ids[samples == s][0]), (labels[samples == s]).tolist())
        for ids, samples, labels in zip(*loader.rows, strict=True)
        for s in samples.unique()
        if ids[samples == s][0]
    )
    both = zip(DOCUMENTS, labels, strict=True)
    cut = [(d[0], own[i : i + 5]) for d, own in both for i in range(0, len(d), 5)]
    assert found == sorted(cut)
    with pytest.raises(ValueError, match=r"^Loader: got labels for 7 documents and 29 tokens; .*30 tokens"):
        Loader(DOCUMENTS, 5, seed=0, labels=[labels[0][1:], *labels[1:]])


def test_peeking_leaves_the_stream_where_it_is():
    loader = Loader(DOCUMENTS, 8, seed=3)
    loader.take(2)
    ahead = loader.peek(3, ahead=4).input_ids
    assert torch.equal(loader.take(7).input_ids[4:], ahead)
