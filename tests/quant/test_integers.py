"""Ascend's integer formats against loops and the documented ties."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.oracles.number_formats import integer
from workbench.quant import ELEMENTS, FORMATS, quantize
from workbench.quant.affine import ascend_quant
from workbench.quant.integers import INT4, INT8, INT31


def test_codes_are_twos_complement():
    assert INT8.values.tolist() == np.arange(256, dtype=np.uint8).view(np.int8).tolist()
    assert INT4.values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1]
    assert INT8.encode(torch.tensor([-1.0, -128.0, -500.0, 127.4, 1e9, torch.inf])).tolist() == [
        255,
        128,
        128,
        127,
        127,
        127,
    ]
    assert INT31.decode(INT31.encode(torch.tensor([-5.0, 2.0**30, -(2.0**30)]))).tolist() == [
        -5,
        2**30,
        -(2**30),
    ]
    assert INT31.encode(torch.tensor([2.0**30])).item() == 2**30 - 1
    with pytest.raises(ValueError, match="got 1 NaN; int8 has no code"):
        INT8.encode(torch.tensor([torch.nan]))


@pytest.mark.parametrize("ties", ["even", "away"])
def test_ties_of_a_token_scale_that_is_a_power_of_two(ties):
    """amax 127 · 2^-7 makes the scale 2^-7 exactly."""
    x = torch.tensor([127, 0.5, 1.5, 2.5, -0.5]) * 2.0**-7
    codes = INT8.decode(INT8.encode(x / quantize(x, "int8_token").block_scales(), ties))
    assert codes.tolist() == {"even": [127, 0, 2, 2, 0], "away": [127, 1, 2, 3, -1]}[ties]
    assert quantize(x, "int8_token").scales.tolist() == [2.0**-7]


def test_w8a8_has_a_scale_for_each_row_and_int4_one_for_each_group(rand):
    x = rand(6, 256)
    for name, shape in (
        ("int8_channel", (6, 1)),
        ("int8_token", (6, 1)),
        ("int8_tensor", ()),
        ("int4_group32", (6, 8)),
    ):
        quantized = quantize(x, name)
        assert quantized.scales.shape == shape and quantized.scales.dtype == torch.float32
    assert INT8.decode(quantize(x, "int8_token").codes).abs().amax(dim=1).tolist() == [127] * 6


@pytest.mark.parametrize(
    ("name", "steps", "largest"), [("int8_token_asymmetric", 255, 127), ("int4_token_asymmetric", 15, 7)]
)
def test_asymmetric_tokens_are_those_of_a_loop(name, steps, largest, rand):
    x = rand(5, 64) + 3
    x[3] = 0
    x[4] = 2.5
    quantized = quantize(x, name)
    y = quantized.dequantize()
    for o in range(3):
        row = x[o].numpy()
        scale = (row.max() - row.min()) / np.float32(steps)
        offset = np.float32(largest) - row.max() / scale
        codes = [integer(v / scale + offset, largest) for v in row]
        assert y[o].tolist() == [float((np.float32(code) - offset) * scale) for code in codes]
        assert max(codes) == largest and min(codes) == -largest - 1
    assert (y[3] == 0).all()
    torch.testing.assert_close(y[4], x[4], rtol=1e-6, atol=0)


def test_asymmetric_tokens_with_a_special_number_are_nan(rand):
    x = rand(3, 16)
    x[1, 4] = torch.nan
    quantized = quantize(x, "int8_token_asymmetric", specials="propagate")
    assert quantized.dequantize().isnan().any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("converts_to_half", [True, False])
def test_static_quantisation_multiplies_in_fp16_as_the_vector_unit_does(converts_to_half, rand):
    x = rand(4000) * 10
    scale, offset = 12.34, 3.3
    ours = INT8.decode(ascend_quant(x, scale, offset, INT8, converts_to_half))
    kind = np.float16 if converts_to_half else np.float32
    expected = [integer(Fraction(float(kind(v) * kind(scale) + kind(offset))), 127) for v in x.numpy()]
    assert ours.tolist() == expected


def test_the_conversion_to_half_moves_some_codes_by_one(rand):
    x = rand(4000) * 10
    half, full = (INT8.decode(ascend_quant(x, 12.34, 3.3, INT8, flag)) for flag in (True, False))
    assert 0 < (half != full).sum() < 100
    assert (half - full).abs().max() == 1


def test_presets_hold_integers_of_their_width():
    for name, fmt in FORMATS.items():
        if name.startswith(("int4", "int8")):
            assert fmt.element is ELEMENTS[name[:4]]
