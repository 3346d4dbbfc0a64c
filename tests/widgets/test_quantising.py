"""The explorer of formats: its figure is the instruments' numbers, and it follows its controls."""

import time

import pytest
import torch

from workbench.quant import quantize
from workbench.quant.hadamard import hadamard_matrix
from workbench.quant.instruments import sqnr_db
from workbench.training.quantised import fresh
from workbench.widgets.quantising import FORMAT_NAMES, weight_explorer, weight_figure

WEIGHTS = {
    "model.layers.0.a": ("linear", torch.randn(32, 64, generator=torch.Generator().manual_seed(0))),
    "model.layers.0.b": ("experts", torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(1))),
}


def point(figure, name):
    (trace,) = [t for t in figure.data if t.name == name]
    return trace


def test_the_points_are_the_weights_signal_to_noise():
    figure = weight_figure(WEIGHTS, "mxfp4_v4", "model.layers.0.b", is_rotated=False)
    for name, role in (("linear maps", "model.layers.0.a"), ("routed experts", "model.layers.0.b")):
        weight = WEIGHTS[role][1]
        expected = sqnr_db(weight, quantize(weight, "mxfp4_v4").dequantize())
        assert point(figure, name).y == pytest.approx((expected,))
    assert sum(point(figure, "errors").y) == pytest.approx(100)


def test_a_rotated_weight_is_rounded_between_two_turns():
    weight = WEIGHTS["model.layers.0.b"][1].clone()
    weight[..., 3] *= 50
    h = hadamard_matrix(32)
    turned = quantize(weight @ h, "int4_channel").dequantize() @ h
    figure = weight_figure(
        {"model.layers.0.b": ("experts", weight)}, "int4_channel", "model.layers.0.b", True
    )
    assert point(figure, "routed experts").y == pytest.approx((sqnr_db(weight, turned),), rel=1e-3)


@pytest.mark.parametrize("fmt", FORMAT_NAMES)
def test_every_offered_format_rounds_a_real_networks_weights(fmt):
    explorer = weight_explorer(fresh(0))
    _, controls, _ = explorer.view.children
    before = explorer.figure.to_json()
    choice, _, rotate = controls.children
    choice.value = fmt
    assert fmt in explorer.figure.layout.annotations[0].text
    assert (explorer.figure.to_json() != before) == (fmt != "mxfp4_v4")
    rotate.value = True
    assert explorer.figure.data[0].y != ()


def test_a_redraw_answers_at_once():
    explorer = weight_explorer(fresh(0))
    choice = explorer.view.children[1].children[1]
    start = time.process_time()
    choice.value = choice.options[3]
    assert time.process_time() - start < 0.4  # 0.2 s on an idle core
