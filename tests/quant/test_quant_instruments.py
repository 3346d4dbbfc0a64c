"""Instruments against direct computation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.oracles.quant_small import small_model, small_text
from workbench.model.instruments import observe_attention
from workbench.quant import RECIPES, Recipe, Rule, apply, quantize
from workbench.quant.instruments import (
    agreement,
    index_scores_of,
    layer_errors,
    operands,
    product_errors,
    relative_error,
    scale_histogram,
    selection_recall,
    size_histogram,
    sqnr_db,
)
from workbench.quant.recipes import experts_in
from workbench.training.indexer_loss import attention_inputs


def test_twenty_decibels_are_a_tenth():
    exact = torch.tensor([3.0, 4.0])
    assert relative_error(exact, exact + torch.tensor([0.3, 0.4])) == pytest.approx(0.1)
    assert sqnr_db(exact, exact + torch.tensor([0.3, 0.4])) == pytest.approx(20)
    assert sqnr_db(exact, exact) == math.inf
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0


def test_the_error_of_a_product_is_its_own_alone():
    """Each product sees the unrounded network's inputs: hooks on an untouched model give the same number."""
    model, ids = small_model(), small_text()
    recipe = Recipe("w8a8", linear=Rule(("int8_channel",), "int8_token"))
    rows = {row["product"]: row for row in product_errors(model, recipe, ids)}
    seen = {}
    layer = model.model.layers[2].self_attn.q_b_proj
    hook = layer.register_forward_hook(lambda m, inputs, y: seen.update(x=inputs[0], y=y))
    model(ids)
    hook.remove()
    x, weight = (quantize(t.detach(), "int8_token").dequantize() for t in (seen["x"], layer.weight))
    row = rows["model.layers.2.self_attn.q_b_proj"]
    assert row["relative_error"] == pytest.approx(relative_error(seen["y"], x @ weight.mT), rel=1e-4)
    assert row["sqnr_db"] == pytest.approx(-20 * math.log10(row["relative_error"]))
    assert row["role"] == "linear"
    assert not any("experts.gate_up" in name for name in rows)


def test_products_of_every_role_are_measured_and_the_model_is_left_alone():
    model, ids = small_model(), small_text()
    before = model(ids)
    rows = product_errors(model, RECIPES["v4_fp4"], ids)
    assert {row["role"] for row in rows} == {"experts", "linear", "plain"}
    mean = {
        role: np.mean([row["sqnr_db"] for row in rows if row["role"] == role])
        for role in ("experts", "plain")
    }
    assert mean["experts"] < 22 < 40 < mean["plain"]  # FP4 against BF16
    assert torch.equal(model(ids), before)


def test_layer_errors_add_up_along_the_network_and_vanish_without_rounding():
    model, ids = small_model(), small_text()
    assert [row["relative_error"] for row in layer_errors(model, Recipe("nothing"), ids)] == [0.0] * 3
    rows = layer_errors(model, "v4_fp4", ids)
    assert [row["layer"] for row in rows] == [0, 1, 2]
    late = Recipe("last", experts=Rule(("mxfp4_v4",)), keep=("*.layers.0.*", "*.layers.1.*"))
    only_last = [row["relative_error"] for row in layer_errors(model, late, ids)]
    assert only_last[:2] == [0.0, 0.0]
    assert 0 < only_last[2] < rows[2]["relative_error"]


def test_agreement_is_torchs_kl_and_a_count(rand):
    exact, rounded = rand(2, 5, 7), rand(2, 5, 7)
    found = agreement(exact, rounded)
    p, q = exact.log_softmax(-1).flatten(0, 1), rounded.log_softmax(-1).flatten(0, 1)
    assert found.kl == pytest.approx(F.kl_div(q, p, reduction="batchmean", log_target=True).item(), rel=1e-5)
    same = sum(int(a.argmax() == b.argmax()) for a, b in zip(p, q, strict=True))
    assert found.same_argmax == pytest.approx(same / 10)
    assert found.largest_gap == pytest.approx(float((p - q).abs().max()))
    assert agreement(exact, exact).kl == agreement(exact, exact).largest_gap == 0


def test_sizes_are_counted_by_power_of_two_of_the_root_mean_square():
    x = torch.tensor([0.0, 1.0, -1.0, 1.0, 5.0, 2.0])
    rms = math.sqrt(float(x.square().mean()))
    expected = [math.floor(math.log2(abs(v) / rms)) if v else -12 for v in x.tolist()]
    rows = {row["log2_size"]: row["share"] for row in size_histogram(x)}
    assert sum(rows.values()) == pytest.approx(1)
    for exponent in set(expected):
        assert rows[exponent] == pytest.approx(expected.count(exponent) / len(x))


def test_scales_are_counted_by_their_exponent():
    weight = torch.zeros(2, 64)
    weight[0, :32], weight[0, 32:], weight[1, :32] = (
        6.0,
        48.0,
        0.75,
    )  # scales 2^0, 2^3, 2^-3, and a zero block
    rows = {row["log2_scale"]: row["blocks"] for row in scale_histogram(weight, "mxfp4_v4")}
    assert rows == {0: 1, 3: 1, -3: 1, -126: 1}
    with pytest.raises(ValueError, match="'hif8' has no scales"):
        scale_histogram(weight, "hif8")


def test_recall_counts_the_entries_that_stay():
    exact = torch.tensor([[[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, -math.inf, -math.inf]]])
    rounded = torch.tensor([[[5.0, 1.0, 3.0, 2.0], [1.0, 2.0, -math.inf, -math.inf]]])
    # The second query sees two entries: it has no choice among 2, and one among 1.
    assert selection_recall(exact, rounded, 2).tolist() == [0.5]
    assert selection_recall(exact, rounded, 1).tolist() == [1.0, 1.0]


def test_operands_are_those_of_the_weights_gradient():
    model, ids = small_model(), small_text()
    name = "model.layers.1.mlp.shared_experts.down_proj"
    x, weight, dy = operands(model, name, ids)
    assert all(p.grad is None for p in model.parameters())
    model.loss(ids).backward()
    layer = model.get_submodule(name)
    torch.testing.assert_close(dy.mT @ x, layer.weight.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(weight, layer.weight)
    assert x.shape[0] == ids.numel()


def test_index_scores_are_those_that_the_model_chooses_by():
    model, ids = small_model(), small_text()
    with attention_inputs(model) as seen_inputs, torch.no_grad():
        model(ids)
    ((layer, (x, layout)),) = seen_inputs.items()
    seen = observe_attention(layer, x, layout).scores
    torch.testing.assert_close(index_scores_of(layer, x, layout), seen, rtol=1e-5, atol=1e-6)


def test_index_scores_under_a_recipe_see_its_rounding():
    model, ids = small_model(), small_text()
    with attention_inputs(model) as seen_inputs, torch.no_grad():
        model(ids)
    ((layer, (x, layout)),) = seen_inputs.items()
    exact = index_scores_of(layer, x, layout)
    with apply(model, Recipe("index", index="mxfp4_v4")):
        rounded = index_scores_of(layer, x, layout)
    assert exact.shape == (2, 37, 9)
    assert torch.equal(exact.isfinite(), rounded.isfinite())
    seen = exact.isfinite()
    assert 0.01 < relative_error(exact[seen], rounded[seen]) < 0.5
    with apply(model, experts_in("mxfp4_v4")):
        assert torch.equal(index_scores_of(layer, x, layout), exact)
