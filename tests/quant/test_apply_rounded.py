"""Products of rounded factors against tiles rounded one by one with ml_dtypes, forward and backward."""

import ml_dtypes
import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from workbench.model.attention import GroupedLinear
from workbench.quant import Rule
from workbench.quant.products import take_over
from workbench.quant.recipes import RECIPES
from workbench.quant.rounded import RoundedProduct

V3 = RECIPES["fp8_v3"].linear


def by_tile(x, rows, columns):
    """Round every tile of a matrix by itself: scale amax / 448 in fp32, then E4M3, in plain loops."""
    x, out = x.astype(np.float32), np.empty(x.shape, np.float32)
    for i in range(0, x.shape[0], rows):
        for j in range(0, x.shape[1], columns):
            tile = x[i : i + rows, j : j + columns]
            scale = np.float32(max(np.abs(tile).max(), np.float32(1e-4))) / np.float32(448)
            codes = np.clip(tile / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
            out[i : i + rows, j : j + columns] = codes.astype(np.float32) * scale
    return out.astype(np.float64)


def test_the_tiles_are_torch_independent():
    x = np.array([[1.0, -0.3, 0.01, 3.5, -7.0]])  # spec example: scale 2^-6
    assert by_tile(x, 1, 128).tolist() == [[1, -0.3125, 0.009765625, 3.5, -7]]


def v3_by_hand(x, weight, dy):
    """V3's three products: x by 1 × 128, W by 128 × 128, dy by 1 × 128; along tokens 128 × 1."""
    xq, wq = by_tile(x, 1, 128), by_tile(weight, 128, 128)
    dx = by_tile(dy, 1, 128) @ wq
    dw = by_tile(dy, 128, 1).T @ by_tile(xq, 128, 1)
    return xq @ wq.T, dx, dw


@pytest.mark.parametrize("tokens", [5, 128, 131])
def test_v3s_three_products_equal_tiles_rounded_by_hand(tokens, rand):
    layer = nn.Linear(160, 136, bias=False)
    x, dy = rand(tokens, 160) * 3, rand(tokens, 136) * 1e-2
    dy[:, 7] *= 50  # tiles along tokens and along outputs differ
    expected = v3_by_hand(x.numpy(), layer.weight.detach().numpy(), dy.numpy())
    take_over(layer, {"weight": RoundedProduct(V3)})
    x.requires_grad_()
    y = layer(x)
    y.backward(dy)
    for ours, theirs in zip((y, x.grad, layer.weight.grad), expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=2e-5, atol=2e-5 * np.abs(theirs).max())


def test_rows_of_a_batch_are_one_row_of_tokens_to_the_weight(rand):
    one, two = nn.Linear(32, 48, bias=False), nn.Linear(32, 48, bias=False)
    two.load_state_dict(one.state_dict())
    for layer in (one, two):
        take_over(layer, {"weight": RoundedProduct(V3)})
    x, dy = rand(3, 7, 32), rand(3, 7, 48)
    one(x).backward(dy)
    two(x.flatten(0, 1)).backward(dy.flatten(0, 1))
    assert torch.equal(one.weight.grad, two.weight.grad)


def test_a_grouped_map_is_one_map_for_each_group(rand):
    grouped = GroupedLinear(32, 2 * 24, groups=2)
    x, dy = rand(3, 5, 2 * 32, requires_grad=True), rand(3, 5, 2 * 24)
    # Rows of one scale each: a block of 128 rows would reach into the other group.
    rule = Rule(("fp8_e4m3_1x32_ue8m0",), V3.activation, V3.gradient)
    alone = [nn.Linear(32, 24, bias=False) for _ in range(2)]
    for layer, weight in zip(alone, grouped.weight.detach().chunk(2), strict=True):
        layer.weight.data.copy_(weight)
        take_over(layer, {"weight": RoundedProduct(rule)})
    take_over(grouped, {"weight": RoundedProduct(rule)})
    y = grouped(x)
    y.backward(dy)
    parts = rearrange(x.detach(), "b s (g i) -> g (b s) i", g=2)
    for layer, part, own_y, own_dy, own_dw in zip(
        alone,
        parts,
        rearrange(y, "b s (g o) -> g (b s) o", g=2),
        rearrange(dy, "b s (g o) -> g (b s) o", g=2),
        grouped.weight.grad.chunk(2),
        strict=True,
    ):
        theirs = layer(part)
        theirs.backward(own_dy)
        torch.testing.assert_close(own_y, theirs)
        torch.testing.assert_close(own_dw, layer.weight.grad)


def test_without_a_gradient_format_backward_takes_the_rounded_factors(rand):
    layer = nn.Linear(32, 48, bias=False)
    x, dy = rand(7, 32, requires_grad=True), rand(7, 48)
    weight = layer.weight.detach().numpy()
    take_over(layer, {"weight": RoundedProduct(Rule(V3.weight, V3.activation))})
    layer(x).backward(dy)
    xq, wq = by_tile(x.detach().numpy(), 1, 128), by_tile(weight, 128, 128)
    np.testing.assert_allclose(x.grad.numpy(), dy.numpy() @ wq, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad.numpy(), dy.numpy().T @ xq, rtol=1e-5, atol=1e-5)
