"""Scales and rotations: without rounding they change nothing, with it they do what their papers say."""

import pytest
import torch

from tests.oracles.quant_small import small_model, small_text
from workbench.quant import FORMATS, Recipe, Rule, fake_quantize, ptq
from workbench.quant.products import sites, take_over
from workbench.quant.ptq.inputs import Inputs, record_inputs, stacked
from workbench.quant.ptq.scaling import awq_scale, output_error, smooth_scale
from workbench.quant.recipes import everything_in
from workbench.quant.rounded import Calibrated, RoundedProduct

W8A8 = everything_in("w8a8", "int8_channel", "int8_token")


def inputs_of(x):
    inputs = Inputs.none(1, x.shape[1])
    inputs.add(x, 0)
    return inputs


@pytest.mark.parametrize("method", ["smoothquant", "awq", "hadamard"])
def test_without_rounding_the_network_is_the_one_it_was(method):
    model, ids = small_model(), small_text()
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[5] = 40.0  # an outlier channel to act on
        before = model(ids)
        found = ptq.calibrate(model, W8A8, [ids], method)
        moved = 0
        by_module = {}
        for name, site in sites(model).items():
            if name in found:
                calibrated = found[name]
                moved += calibrated.rotation is not None or not torch.allclose(
                    calibrated.scale, torch.ones(()), rtol=1e-2
                )
                by_module.setdefault(site.module, {})[site.parameter] = RoundedProduct(Rule(), calibrated)
        for module, products in by_module.items():
            take_over(module, products)
        torch.testing.assert_close(model(ids), before, rtol=1e-3, atol=1e-3)
        assert moved > 10


def test_smoothquants_factors_are_those_of_the_paper():
    """α = 1/2: the largest of x and of W become equal in every channel."""
    stack = torch.tensor([[[4.0, -1.0, 2.0], [1.0, 0.5, -8.0]]])
    x = torch.tensor([[1.0, 100.0, -2.0], [-16.0, 3.0, 1.0]])
    scale = smooth_scale(stack, inputs_of(x))
    assert scale.tolist() == [2.0, 10.0, 0.5]
    torch.testing.assert_close((x / scale).abs().amax(dim=0), (stack * scale).abs().amax(dim=1)[0])
    assert smooth_scale(stack, inputs_of(x), alpha=1.0).tolist() == [16.0, 100.0, 2.0]


def test_smoothing_helps_integers_with_an_outlier_channel(rand):
    weight, x = rand(24, 64), rand(200, 64)
    x[:, 11] *= 100
    exact = x @ weight.mT

    def error(calibrated):
        product = RoundedProduct(Rule(("int8_channel",), "int8_token"), calibrated)
        return float((product(x, product.weight(weight), None) - exact).square().mean())

    smooth = Calibrated(scale=smooth_scale(weight[None], inputs_of(x)))
    assert error(smooth) < 0.2 * error(Calibrated())
    assert error(Calibrated(rotation=64)) < 0.2 * error(Calibrated())


@pytest.mark.parametrize("fmt", ["mxfp4_v4", "int4_group32", "int4_channel"])
def test_awq_protects_the_channels_that_count_and_never_loses(fmt, rand):
    stack, x = rand(2, 24, 64), rand(300, 64)
    flat = Inputs.none(2, 64)
    for slot in (0, 1):
        flat.add(x, slot)
    x = x.clone()
    x[:, ::16] *= 30
    spiky = Inputs.none(2, 64)
    for slot in (0, 1):
        spiky.add(x, slot)

    def error(inputs, scale):
        rounded = fake_quantize(stack * scale, fmt) / scale
        return float(((rounded - stack) @ x.mT).square().sum()), float(output_error(rounded - stack, inputs))

    by_hand, by_moment = error(spiky, awq_scale(stack, spiky, (fmt,)))
    assert by_hand == pytest.approx(by_moment, rel=1e-4)
    # A scale that is a power of two takes up most of a factor; what is left still counts.
    assert by_hand < (0.9 if fmt == "mxfp4_v4" else 0.7) * error(spiky, torch.ones(64))[0]
    found = error(flat, awq_scale(stack, flat, (fmt,)))[1]
    assert found <= error(flat, torch.ones(64))[1] * (1 + 1e-6)


def test_a_channel_that_calibration_never_moved_keeps_its_weight_finite():
    model, ids = small_model(), small_text()
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = 0.0
    for method in ("smoothquant", "awq"):
        for name, calibrated in ptq.calibrate(model, W8A8, [ids], method).items():
            weight = calibrated.of_weight(stacked(sites(model)[name]))
            assert weight.isfinite().all(), name
            assert FORMATS["int8_channel"].quantize(weight).dequantize().isfinite().all()


def test_plain_rounding_needs_no_calibration():
    model = small_model()
    recipe = Recipe("experts", experts=Rule(("mxfp4_v4",)))
    found = ptq.calibrate(model, recipe, [small_text()], "rtn")
    assert set(found) == set(record_inputs(model, recipe, [small_text()]))
    assert set(found.values()) == {Calibrated()}
