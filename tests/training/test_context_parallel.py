"""Compression over ranks: the entries of one rank, bit for bit, whatever the packing and the cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.config import load_config
from workbench.model.compressor import Compressor
from workbench.model.rope import RotaryEmbedding, rotate
from workbench.model.windows import PackedWindows
from workbench.training.context_parallel import compress_on_ranks, tokens_needed

CONFIG = load_config("tiny")
ROTARY = RotaryEmbedding(CONFIG)


def compressor_of(ratio, overlaps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = Compressor(CONFIG, ratio, CONFIG.head_dim, overlaps)
    for p in made.parameters():
        torch.nn.init.normal_(p, generator=generator)
    return made.requires_grad_(False)


def packed(lengths):
    return torch.cat([torch.arange(n) for n in lengths])


def on_one_rank(compressor, raw, positions):
    windows = PackedWindows(ROTARY, positions[None], compressor.ratio, raw.dtype)
    pooled = windows.split(raw[None], compressor.overlaps, None)
    if pooled is None:
        return raw.new_zeros(0, compressor.width)
    return rotate(compressor.kv_norm(compressor.pool(pooled)), windows.rotation)


@st.composite
def rows(draw):
    ranks, ratio = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4, 8]))
    local = draw(st.integers(2 * ratio, 40))
    left, lengths = ranks * local, []
    while left:
        lengths.append(draw(st.integers(1, left)))
        left -= lengths[-1]
    return ranks, ratio, lengths, draw(st.booleans()), draw(st.integers(0, 99))


@settings(max_examples=60, deadline=None)
@given(rows())
def test_ranks_make_the_entries_of_one_rank(setting):
    ranks, ratio, lengths, overlaps, seed = setting
    compressor, positions = compressor_of(ratio, overlaps), packed(lengths)
    width = 2 * (2 if overlaps else 1) * compressor.width
    raw = torch.randn(len(positions), width, generator=torch.Generator().manual_seed(seed))
    sent = 2 * ratio - 1 if overlaps else ratio
    got = compress_on_ranks(compressor, raw, positions, ROTARY, ranks, sent)
    assert torch.equal(got.entries, on_one_rank(compressor, raw, positions))
    assert len(got.entries) == sum(n // ratio for n in lengths)


@settings(max_examples=60, deadline=None)
@given(rows())
def test_what_is_needed_is_counted_window_by_window(setting):
    ranks, ratio, lengths, overlaps, _ = setting
    positions, most = packed(lengths), 0
    local = len(positions) // ranks
    for end, place in enumerate(positions.tolist()):
        if (place + 1) % ratio == 0:
            span = 2 * ratio if overlaps and place >= ratio else ratio
            begin_of_rank = end // local * local
            most = max(most, begin_of_rank - (end - span + 1))
    assert tokens_needed(positions, ratio, ranks, overlaps=overlaps) == most
    assert most <= (2 * ratio - 1 if overlaps else ratio - 1)


def test_messages_are_a_fraction_of_the_raw_ones():
    compressor, positions = compressor_of(8, False), packed([512])
    raw = torch.randn(512, 2 * compressor.width)
    got = compress_on_ranks(compressor, raw, positions, ROTARY, 4, 8)
    # Eight tokens with gates, and three times 17 entries; instead of three times 128 tokens with gates.
    assert got.received == (8 * 2 + 3 * 17) * compressor.width
    assert got.received_raw == 3 * 128 * 2 * compressor.width


def test_gradients_come_back_through_the_messages():
    compressor, positions = compressor_of(4, True), packed([13, 11, 24])
    raw = torch.randn(48, 4 * compressor.width, generator=torch.Generator().manual_seed(0))
    grads = []
    for run in (
        lambda x: compress_on_ranks(compressor, x, positions, ROTARY, 3, 7).entries,
        lambda x: on_one_rank(compressor, x, positions),
    ):
        x = raw.clone().requires_grad_()
        run(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_too_short_a_message_is_refused():
    compressor, positions = compressor_of(4, True), packed([16])
    raw = torch.zeros(16, 4 * compressor.width)
    with pytest.raises(ValueError, match=r"compress_on_ranks: 3 tokens are sent on; windows need 4"):
        compress_on_ranks(compressor, raw, positions, ROTARY, 2, 3)
    with pytest.raises(ValueError, match="16 tokens over 3 ranks"):
        compress_on_ranks(compressor, raw, positions, ROTARY, 3, 4)
