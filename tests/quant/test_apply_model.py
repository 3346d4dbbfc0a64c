"""A recipe on a whole model: reversible, straight through, and the same in packed codes."""

import copy

import pytest
import torch

from tests.oracles.quant_small import small_model, small_text
from workbench.quant import FORMATS, RECIPES, Recipe, Rule, apply, quantize
from workbench.quant.products import sites
from workbench.quant.recipes import experts_in
from workbench.quant.rounded import Calibrated

WEIGHTS_ONLY = Recipe("weights", Rule(("mxfp4_v4",)), Rule(("int8_channel",)), Rule(("hif8",)))


def everything_of(model):
    """Every module with its class and own attributes, every tensor with its bits and its identity."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        {name: (id(m), type(m), sorted(vars(m))) for name, m in model.named_modules()},
        {name: (id(t), t.detach().clone()) for name, t in tensors.items()},
        {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in model.named_modules()},
    )


def assert_untouched(before, after):
    assert before[0] == after[0]
    assert before[2] == after[2]
    assert before[1].keys() == after[1].keys()
    for name, (identity, tensor) in before[1].items():
        assert identity == after[1][name][0]
        assert torch.equal(tensor, after[1][name][1])


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_taken_off_leaves_the_very_same_model(name, is_packed):
    model, ids = small_model(), small_text()
    before, logits = everything_of(model), model(ids)
    with apply(model, name, is_packed=is_packed):
        assert not torch.equal(model(ids), logits)
    assert_untouched(before, everything_of(model))
    assert torch.equal(model(ids), logits)


@pytest.mark.parametrize("is_packed", [False, True])
def test_so_does_one_that_failed_half_way(is_packed):
    model = small_model()
    before = everything_of(model)
    odd = Recipe("odd", linear=Rule(("int8_channel",)), experts=Rule(("int4_group128",)))
    with pytest.raises(ValueError, match="multiple of 128"), apply(model, odd, is_packed=is_packed):
        model(small_text())
    assert_untouched(before, everything_of(model))


def test_removing_twice_is_removing_once():
    model = small_model()
    applied = apply(model, "v4_fp4")
    applied.remove()
    applied.remove()
    apply(model, "v4_fp4").remove()


def test_the_gradient_is_that_of_the_dequantised_weight():
    model, ids = small_model(), small_text()
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for site in sites(rounded).values():
            fmt = WEIGHTS_ONLY.rule(site.module_name).weight[0]
            site.weight.copy_(quantize(site.weight, fmt).dequantize())
    rounded.loss(ids).backward()
    with apply(model, WEIGHTS_ONLY):
        model.loss(ids).backward()
    for (name, master), (_, weight) in zip(model.named_parameters(), rounded.named_parameters(), strict=True):
        if weight.grad is None:
            assert master.grad is None, name  # the indexer: the loss does not reach it
        else:
            assert torch.equal(master.grad, weight.grad), name


def test_a_rule_without_roundings_leaves_a_product_alone():
    model, ids = small_model(), small_text()
    before = model(ids)
    applied = apply(model, experts_in("mxfp4_v4"))
    touched = [name for name, rule in applied.rules.items() if rule != Rule()]
    assert touched and all(".experts." in name for name in touched)
    assert not torch.equal(model(ids), before)
    applied.remove()
    with apply(model, Recipe("nothing")):
        assert torch.equal(model(ids), before)


def test_fp4_weights_pass_fp8_unchanged():
    """V4's chain FP4 to FP8 rounds once: its second format changes nothing."""
    model, ids = small_model(), small_text()
    chain = Recipe("chain", experts=Rule(("mxfp4_v4", "fp8_e4m3_128x128_ue8m0")))
    with apply(model, chain):
        twice = model(ids)
    with apply(model, experts_in("mxfp4_v4")):
        assert torch.equal(model(ids), twice)


@pytest.mark.parametrize("name", RECIPES)
def test_packed_codes_give_the_log_probabilities_that_training_saw(name):
    model, ids = small_model(), small_text()
    with apply(model, name):
        model.loss(ids).backward()  # a training forward
        simulated = model(ids).log_softmax(dim=-1)
    with apply(model, name, is_packed=True):
        assert torch.equal(model(ids).log_softmax(dim=-1), simulated)


def test_packed_weights_are_bytes_and_the_parameters_are_gone():
    model = small_model()
    numbers = sum(site.weight.numel() for site in sites(model).values() if ".experts." in site.name)
    with apply(model, experts_in("mxfp4_v4"), is_packed=True) as applied:
        experts = model.model.layers[0].mlp.experts
        assert experts.gate_up_proj.device.type == "meta"
        assert applied.stored_bytes == numbers * 4.25 / 8
        assert all(t.dtype == torch.uint8 for t in experts.products["down_proj"].stored[0][1].values())
    assert experts.gate_up_proj.device.type == "cpu"


def test_calibrated_codes_stand_in_for_the_weight():
    model, ids = small_model(), small_text()
    site = sites(model)["model.layers.0.mlp.experts.down_proj"]
    codes = tuple(quantize(torch.zeros_like(w), "mxfp4_v4") for w in site.weight)
    recipe = experts_in("mxfp4_v4")
    zeroed = copy.deepcopy(model)
    sites(zeroed)[site.name].weight.data.zero_()
    with apply(zeroed, recipe):
        expected = zeroed(ids)
    for is_packed in (False, True):
        with apply(model, recipe, {site.name: Calibrated(codes=codes)}, is_packed=is_packed):
            assert torch.equal(model(ids), expected)


def test_unknown_names_are_refused_with_the_known_ones():
    model = small_model()
    with pytest.raises(ValueError, match=r"apply: recipe 'v4-fp4' is unknown; choose one of .*v4_fp4"):
        apply(model, "v4-fp4")
    with pytest.raises(ValueError, match=r"calibration has \['nowhere'\]"):
        apply(model, "v4_fp4", {"nowhere": Calibrated()})
    head = {"lm_head": Calibrated()}
    with pytest.raises(ValueError, match="no such weight"):
        apply(model, "v4_fp4", head)
    with apply(model, "bf16"), pytest.raises(ValueError, match="apply: a recipe runs this model already"):
        apply(model, "v4_fp4")


def test_every_recipe_names_formats_that_exist():
    for recipe in RECIPES.values():
        for rule in (recipe.experts, recipe.linear, recipe.plain):
            for fmt in (*rule.weight, rule.activation, rule.gradient, recipe.kv, recipe.index):
                assert fmt is None or getattr(fmt, "name", fmt) in FORMATS
