"""Cambricon fixed point: the worked examples, and loops in fp32 steps."""

import math

import numpy as np
import pytest
import torch

from tests.oracles.number_formats import integer
from workbench.quant import FORMATS, quantize

f32 = np.float32


@pytest.mark.parametrize(
    ("amax", "position", "scale"),
    [(1.0, -6, 1.984375), (6.0, -4, 16 * 127 / 6 / 256), (127.0, 0, 1.0), (0.0, 0, 1.0)],
)
def test_position_and_scale_of_an_amax(amax, position, scale):
    x = torch.tensor([amax, -amax / 2])
    by_both = quantize(x, "mlu_int8_pos_scale")
    assert int(by_both.scales) == position
    torch.testing.assert_close(float(by_both.tensor_scale), scale, rtol=1e-7, atol=0)
    by_position = quantize(x, "mlu_int8_pos")
    assert (int(by_position.scales), float(by_position.tensor_scale)) == (position, 1.0)
    assert torch.equal(by_both.block_scales(), torch.tensor(2.0**position) / by_both.tensor_scale)


def test_codes_worked_by_hand():
    x = torch.tensor([1.0, 0.1, -0.7])
    for name, codes in (("mlu_int8_pos", [64, 6, -45]), ("mlu_int8_pos_scale", [127, 13, -89])):
        quantized = quantize(x, name)
        assert quantized.format.element.decode(quantized.codes).tolist() == codes


def test_halves_go_away_from_zero():
    x = torch.tensor([64.0, 0.5, -0.5, 1.5, 2.5])  # position 0
    assert quantize(x, "mlu_int8_pos").dequantize().tolist() == [64, 1, -1, 2, 3]


@pytest.mark.parametrize(
    "name", ["mlu_int8_pos", "mlu_int8_pos_scale", "mlu_int16_pos", "mlu_int16_pos_scale"]
)
@pytest.mark.parametrize("size", [1.0, 1e-20, 1e-40, 1e30])
def test_symmetric_modes_are_those_of_a_loop(name, size, rand):
    x = rand(3, 32) * size
    x[0, :2] = torch.tensor([1.0, -1.0]) * x.abs().max() * 1.999  # reaches the end of the integers
    fmt = FORMATS[name]
    n, largest = fmt.element.bits, int(fmt.element.largest)
    amax = float(x.abs().max())
    position = math.frexp(amax)[1] - 1 - (n - 2)
    scale = f32(1) if fmt.mode == "position" else f32(2.0**position * largest) / f32(amax)
    expected = []
    for v in x.flatten().numpy():
        code = integer(f32(float(v * scale) * 2.0**-position), largest, "away")
        expected.append(float(f32(code * 2.0**position) / scale))
    assert quantize(x, name).dequantize().flatten().tolist() == expected


def test_31_bits_hold_fp32s_24_and_lie_in_two_halves(rand):
    x = rand(4, 9)
    quantized = quantize(x, "mlu_int31_pos")
    position = math.frexp(float(x.abs().max()))[1] - 1 - 29
    codes = [integer(float(v) * 2.0**-position, 2**30 - 1, "away") for v in x.flatten()]
    packed = quantized.packed()
    assert packed["high"].dtype == packed["low"].dtype == torch.int16
    assert (packed["low"] >= 0).all()
    whole = packed["high"].long() * 2**15 + packed["low"].long()
    assert whole.flatten().tolist() == codes
    assert (quantized.dequantize() - x).abs().max() <= 2.0**position / 2


def test_an_offset_puts_the_range_on_all_integers(rand):
    x = rand(4, 33) + 5
    quantized = quantize(x, "mlu_int8_offset")
    codes = quantized.format.element.decode(quantized.codes)
    assert (codes.min(), codes.max()) == (-128, 127)
    step = float((x.max() - x.min()) / 255)
    assert (quantized.dequantize() - x).abs().max() <= step * 1.001  # the offset is rounded, too
    assert float(quantized.offsets) == round(float(quantized.offsets))


def test_numbers_that_are_not_finite_are_refused_under_both_policies():
    x = torch.tensor([1.0, torch.nan])
    with pytest.raises(ValueError, match="1 NaN and 0 infinite"):
        quantize(x, "mlu_int8_pos")
    with pytest.raises(ValueError, match="got 1 numbers not finite; fixed point has no NaN"):
        quantize(x, "mlu_int8_pos", specials="propagate")
