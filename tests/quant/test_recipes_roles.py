"""Recipes: V4's is held against the list of stored tensors, which another part of the workbench keeps."""

from dataclasses import replace

import pytest

from tests.oracles.quant_small import small_model
from workbench import accounting
from workbench.config import load_config
from workbench.quant import RECIPES, Recipe, Rule
from workbench.quant.products import sites
from workbench.quant.recipes import NOTHING

STORED = {
    ("mxfp4_v4", "fp8_e4m3_128x128_ue8m0"): "FP4",
    ("fp8_e4m3_128x128_ue8m0",): "FP8",
    ("bf16",): "BF16",
}


@pytest.mark.parametrize("name", ["deepseek-v4-flash", "deepseek-v4-pro"])
def test_v4s_recipe_rounds_what_the_release_stores_in_few_bits(name):
    recipe, n_seen = RECIPES["v4_fp4"], 0
    for tensor in accounting.tensors(load_config(name)):
        if tensor.name.endswith("o_a_proj"):
            continue  # stored in FP8, converted to BF16 for its product
        module = tensor.name.rpartition(".")[0] if ".experts." in tensor.name else tensor.name
        rule = recipe.rule(module)
        if rule != NOTHING:
            assert STORED[rule.weight] == tensor.stored, tensor.name
            n_seen += 1
        else:
            assert tensor.stored not in ("FP4", "FP8"), tensor.name
    assert n_seen > 500


def test_the_recipe_reaches_every_product_of_the_small_network():
    recipe = RECIPES["v4_fp4"]
    assert all(recipe.rule(site.module_name) != NOTHING for site in sites(small_model()).values())


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens", "model.layers.1.mlp.gate", "attn_hc"])
def test_head_embedding_router_and_mixing_are_never_rounded(name):
    assert all(recipe.rule(name) == NOTHING for recipe in RECIPES.values())


def test_kept_modules_stay_as_they_are():
    recipe = replace(RECIPES["fp8_v3"], keep=("*.layers.2.*",))
    assert recipe.rule("model.layers.2.self_attn.q_a_proj") == NOTHING
    assert recipe.rule("model.layers.1.self_attn.q_a_proj") == RECIPES["fp8_v3"].linear


def test_a_recipe_is_a_value():
    assert Recipe("a", Rule(("int8_channel",))) == Recipe("a", Rule(("int8_channel",)))
    assert len({recipe.name for recipe in RECIPES.values()}) == len(RECIPES)
