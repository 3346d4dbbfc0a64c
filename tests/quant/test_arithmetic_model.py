"""A model in the arithmetic of a chip: every product diverted, nothing else touched, all of it undone."""

import contextlib
import dataclasses

import pytest
import torch

import workbench as wb
from workbench import accounting
from workbench.quant.arithmetic.chips import ARITHMETICS, chip_arithmetic
from workbench.quant.arithmetic.linear import linear
from workbench.quant.arithmetic.matmul import Arithmetic, matmul
from workbench.quant.arithmetic.model import arithmetic_of
from workbench.quant.arithmetic.roles import role_of
from workbench.quant.arithmetic.units import FloatUnit

BF16 = Arithmetic(FloatUnit(16, 25, 23, "zero"), "bf16", "bf16")


def chip(**products):
    """A chip that computes all in FP32 but what is named."""
    plain = Arithmetic(FloatUnit(32))
    roles = dict(experts=plain, linear=plain, plain=plain) | products
    return dataclasses.replace(ARITHMETICS["v4-reference"], **roles)


@pytest.fixture
def model():
    return wb.model.Transformer(wb.load_config("tiny"), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def ids():
    return torch.randint(0, 50, (2, 70), generator=torch.Generator().manual_seed(1))


def test_roles_are_what_the_release_stores():
    rows = accounting.tensors(wb.load_config("deepseek-v4-flash"))
    stored = {"experts": "FP4", "linear": "FP8", "plain": "BF16"}
    seen = set()
    for row in rows:
        name = row.name.rpartition(".")[0] if row.kind == "experts" else row.name
        role = role_of(name)
        if row.name.endswith("o_a_proj"):  # stored in FP8, multiplied in BF16
            assert role == "plain"
        elif row.stored in ("FP4", "FP8"):
            assert stored[role] == row.stored, row.name
        elif role is not None:
            assert row.is_matmul and stored[role] == row.stored, row.name
        else:
            seen.add(row.name.split(".")[-1])
    # What stays in FP32: no matrix unit's work, or kept out of the formats by the reference code.
    assert {name for name in seen if "norm" not in name} == {
        "embed_tokens", "lm_head", "gate", "tid2eid", "e_score_correction_bias",
        "fn", "base", "scale", "hc_fn", "hc_base", "hc_scale", "sinks", "position_bias",
    }  # fmt: skip


@torch.no_grad()
def test_fp32_on_a_chip_is_fp32(model, ids):
    plain = model(ids)
    with arithmetic_of(model, chip()):
        torch.testing.assert_close(model(ids), plain, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("role", ["experts", "linear", "plain"])
def test_each_role_has_its_own_products(model, ids, role):
    """Those of one role move when its arithmetic does, and its modules give what `matmul` gives."""
    rough = Arithmetic(FloatUnit(8, 6, 6, "zero"), "e4m3fn", "e4m3fn")
    seen = []

    def look(module, inputs, output):
        seen.append(torch.equal(output, matmul(inputs[0], module.weight, rough)))

    hooks = [
        module.register_forward_hook(look)
        for name, module in model.named_modules()
        if role_of(name) == role and isinstance(module, torch.nn.Linear) and not name.endswith("o_a_proj")
    ]
    with arithmetic_of(model, chip()):
        before = model(ids)
    seen.clear()
    with arithmetic_of(model, chip(**{role: rough})):
        after = model(ids)
    for hook in hooks:
        hook.remove()
    assert not torch.equal(before, after)
    assert all(seen) and (seen or role == "experts")


@torch.no_grad()
def test_attention_multiplies_in_plain_arithmetic(model, ids):
    rough = Arithmetic(FloatUnit(8, 6, 6, "zero"), "e4m3fn", "e4m3fn")
    core = model.model.layers[0].self_attn.core
    calls = []
    hook = core.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output[0])))
    model(ids)
    hook.remove()
    inputs, expected = calls[0]
    with arithmetic_of(model, chip(linear=rough, experts=rough)):
        torch.testing.assert_close(core(*inputs)[0], expected)
    with arithmetic_of(model, chip(plain=rough)):
        error = (core(*inputs)[0] - expected).norm() / expected.norm()
    assert 0.005 < error < 0.2


@torch.no_grad()
def test_the_model_is_left_as_it_was(model, ids):
    before, classes = model(ids), [type(module) for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with contextlib.suppress(ZeroDivisionError), arithmetic_of(model, chip(linear=BF16)):
        assert not torch.equal(model(ids), before)
        _ = 1 // 0
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(ids), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_a_changed_weight_is_rounded_again(model, ids):
    with arithmetic_of(model, chip(linear=BF16)):
        before = model(ids)
        weight = model.model.layers[0].self_attn.q_a_proj.weight
        weight.mul_(3)
        after = model(ids)
    with arithmetic_of(model, chip(linear=BF16)):
        assert torch.equal(model(ids), after)
    assert not torch.equal(before, after)


def test_a_chip_nobody_knows_is_refused(model):
    with pytest.raises(ValueError, match="did you mean ascend-950"):
        chip_arithmetic("ascend950")
    with (
        arithmetic_of(model, chip()),
        pytest.raises(ValueError, match="already"),
        arithmetic_of(model, chip()),
    ):
        pass


def test_the_gradient_passes_straight_through(rand):
    x, weight, dy = rand(2, 5, 24).requires_grad_(), rand(7, 24).requires_grad_(), rand(2, 5, 7)
    linear(x, weight, BF16).backward(dy)
    rows, rounded = x.detach().bfloat16().float(), weight.detach().bfloat16().float()
    torch.testing.assert_close(x.grad, dy @ rounded)
    torch.testing.assert_close(weight.grad, torch.einsum("bsn,bsk->nk", dy, rows))


def test_the_backward_products_have_an_arithmetic_too(rand):
    x, weight, dy = rand(40, 24).requires_grad_(), rand(7, 24).requires_grad_(), rand(40, 7)
    coarse = Arithmetic(FloatUnit(8, 6, 6, "zero"), "e5m2", "bf16")
    linear(x, weight, BF16, backward=coarse).backward(dy)
    rows, rounded = x.detach().bfloat16().float(), weight.detach().bfloat16().float()
    assert torch.equal(x.grad, matmul(dy, rounded.T, coarse))
    both = dataclasses.replace(coarse, b="e5m2")
    assert torch.equal(weight.grad, matmul(dy.T, rows.T, both))


def test_a_network_learns_in_a_chips_arithmetic(model, ids):
    """The gradient of every product's weight arrives."""
    with arithmetic_of(model, chip(experts=BF16, linear=BF16, plain=BF16)):
        model(ids).logsumexp(-1).sum().backward()
    model_grads = {
        name: p.grad for name, p in model.named_parameters() if role_of(name.removesuffix(".weight"))
    }
    assert model_grads
    missing = [name for name, grad in model_grads.items() if grad is None or not grad.abs().sum()]
    # The indexer's selection passes no gradient, and the tokens of one batch do not reach the MTP blocks.
    assert all("indexer" in name or name.startswith("mtp.") for name in missing)
