"""Rounded caches and a rounded index path: what is stored lies on the grid, and decoding sees the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.quant_small import small_model, small_text
from workbench.model.indexer import index_scores
from workbench.quant import Recipe, apply, quantize
from workbench.quant.hadamard import hadamard_matrix, rotate_blocks

KV = Recipe("kv", kv="mxfp8_e4m3")
INDEX = Recipe("index", index="mxfp4_v4")
BOTH = Recipe("both", kv="mxfp8_e4m3", index="mxfp4_v4", index_scores="bf16")


def stepwise(model, ids):
    cache = model.new_cache(len(ids), ids.shape[1])
    return torch.cat([model(ids[:, i : i + 1], cache=cache) for i in range(ids.shape[1])], dim=1)


@pytest.mark.parametrize("recipe", [KV, INDEX, BOTH], ids=lambda recipe: recipe.name)
def test_step_by_step_decoding_reads_the_same_numbers(recipe):
    model, ids = small_model(), small_text()
    plain = model(ids).detach()
    with apply(model, recipe), torch.no_grad():
        whole = model(ids)
        close = torch.isclose(stepwise(model, ids), whole, rtol=1e-4, atol=1e-4).float().mean()
    # The order of fp32 sums differs, and where that lifts a number over a midpoint the texts part for good.
    assert close > 0.9
    assert torch.isclose(plain, whole, rtol=1e-4, atol=1e-4).float().mean() < 0.6


def test_the_caches_hold_numbers_of_their_formats():
    model, ids = small_model(), small_text()
    with apply(model, BOTH), torch.no_grad():
        cache = model.new_cache(len(ids), ids.shape[1])
        model(ids, cache=cache)
    seen = 0
    for state in cache.layers:
        held = [(state.window, "kv")]
        if state.compressed is not None:
            held.append((state.compressed.pool, "kv"))
        if state.index is not None:
            held.append((state.index.pool, "index"))
        for tensor, kind in held:
            numbers = tensor.flatten(0, 1)[tensor.flatten(0, 1).abs().amax(dim=-1) > 0]
            assert len(numbers) > 3
            still, turned = numbers.split([32, 16], dim=-1) if kind == "kv" else (numbers, None)
            fmt = "mxfp8_e4m3" if kind == "kv" else "mxfp4_v4"
            assert torch.equal(quantize(still, fmt).dequantize(), still)
            if turned is not None:
                assert torch.equal(turned.bfloat16().float(), turned)
            seen += 1
    assert seen == 6  # three windows, two kinds of entries, one of index keys


def captured_selection(model, ids):
    """The CSA layer's Selection on a pass, and the entries that it chose."""
    indexer, found = model.model.layers[1].self_attn.compressor.indexer, []
    own = type(indexer).select

    def select(*args):
        found.append(own(indexer, *args))
        return found[-1]

    indexer.select = select
    with torch.no_grad():
        model(ids)
    del indexer.select
    (selection,) = found
    return selection, selection.best(0, ids.shape[1], 0, ids.shape[1] // 4)


def test_entries_are_chosen_by_scores_cut_to_bf16():
    model, ids = small_model(), small_text(rows=1, length=400)
    with apply(model, Recipe("scores", index_scores="bf16")):
        selection, best = captured_selection(model, ids)
    exact_selection, exact = captured_selection(model, ids)
    scores = index_scores(selection.q, selection.weights, selection.keys.range(0, 100)).bfloat16()[:, -1]
    assert set(best[0, -1].tolist()) == set(scores.topk(3).indices[0].tolist())
    assert torch.equal(selection.q, exact_selection.q)
    assert not torch.equal(best.sort().values, exact.sort().values)  # some near ties of 400 go another way


def test_index_queries_and_keys_are_rotated_then_rounded():
    model, ids = small_model(), small_text()
    with apply(model, INDEX):
        rounded, _ = captured_selection(model, ids)
    exact, _ = captured_selection(model, ids)
    hadamard = torch.tensor([[(-1) ** (i & j).bit_count() for j in range(32)] for i in range(32)]) / 32**0.5
    for ours, plain in ((rounded.q, exact.q), (rounded.keys.flat, exact.keys.flat)):
        expected = quantize(plain @ hadamard, "mxfp4_v4").dequantize()
        # A sum in another order may fall on the other side of a midpoint.
        assert float((ours == expected).float().mean()) > 0.999


@given(log_n=st.integers(0, 7))
def test_the_hadamard_matrix_is_symmetric_orthogonal_and_flat(log_n):
    n = 2**log_n
    h = hadamard_matrix(n)
    torch.testing.assert_close(h @ h, torch.eye(n), rtol=0, atol=1e-5)
    assert torch.equal(h, h.mT)
    torch.testing.assert_close(h.abs(), torch.full((n, n), n**-0.5))
    assert (hadamard_matrix(2) > 0).tolist() == [[True, True], [True, False]]


def test_rotation_keeps_products_and_spreads_an_outlier(rand):
    q, k = rand(3, 5, 96), rand(7, 96)
    torch.testing.assert_close(rotate_blocks(q, 32) @ rotate_blocks(k, 32).mT, q @ k.mT, rtol=1e-4, atol=1e-4)
    spike = torch.zeros(64)
    spike[9] = 8.0
    assert rotate_blocks(spike).abs().tolist() == [1.0] * 64
    assert rotate_blocks(spike, 4).abs().count_nonzero() == 4


@pytest.mark.parametrize(
    ("channels", "block", "match"),
    [(96, None, "n=96"), (96, 12, "n=12"), (96, 64, "96 channels and blocks of 64")],
)
def test_a_block_that_does_not_fit_is_refused(channels, block, match):
    with pytest.raises(ValueError, match=match):
        rotate_blocks(torch.ones(2, channels), block)
