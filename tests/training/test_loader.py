"""The stream of rows depends on seed and place alone."""

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
