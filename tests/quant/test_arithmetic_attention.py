"""Attention in parts: right against FP64, and whose order of merging moves bits."""

import pytest
import torch

from workbench.quant.arithmetic.attention import attend_in_parts, split_tokens


def plain_attention(q, kv):
    q, kv = q.double(), kv.double()
    weights = (torch.einsum("bc,btc->bt", q, kv) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bt,btc->bc", weights, kv)


@pytest.mark.parametrize(("tokens", "part"), [(64, 64), (200, 64), (640, 256), (70, 128)])
def test_attention_in_parts_is_attention(tokens, part, rand):
    q, kv = rand(3, 5), rand(3, tokens, 5)
    found = attend_in_parts(q, kv, part)
    torch.testing.assert_close(found.double(), plain_attention(q, kv), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_order_in_which_units_finish_and_the_batch_leave_the_bits_alone(dtype, rand):
    q, kv = rand(7, 16).to(dtype), rand(7, 512, 16).to(dtype)
    whole = attend_in_parts(q, kv, 128)
    for order in ([3, 1, 0, 2], [1, 2, 3, 0]):
        assert torch.equal(attend_in_parts(q, kv, 128, order), whole)
    for batch in (1, 2, 5):
        assert torch.equal(attend_in_parts(q[:batch], kv[:batch], 128), whole[:batch])


def test_another_cut_moves_bits(rand):
    q, kv = rand(7, 16), rand(7, 512, 16)
    assert not torch.equal(attend_in_parts(q, kv, 64), attend_in_parts(q, kv, 256))


def test_split_kv_cuts_by_what_the_batch_leaves_over():
    assert split_tokens(4096, rows=1, units=132) == 64  # no more parts than tiles
    assert split_tokens(4096, rows=16, units=132) == 512  # 8 units each: 64 tiles in 8 parts
    assert split_tokens(4096, rows=200, units=132) == 4096


def test_impossible_cuts_are_refused(rand):
    with pytest.raises(ValueError, match="part_tokens=100"):
        attend_in_parts(rand(1, 4), rand(1, 200, 4), 100)
    with pytest.raises(ValueError, match="each of the 2 ends once"):
        attend_in_parts(rand(1, 4), rand(1, 128, 4), 64, [0, 0])
