"""HiF4 against a loop over its six steps, and the worked groups."""

import pytest
import torch

from tests.oracles.number_formats import hif4_group
from workbench.quant import FORMATS, quantize

HIF4 = FORMATS["hif4"]


def group(**lanes):
    x = torch.zeros(64)
    for place, value in lanes.items():
        x[int(place[1:])] = value
    return x


@pytest.mark.parametrize("size", [1.0, 1e-20, 1e-3, 1e4, 1e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_words_are_those_of_a_loop(size, dtype):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(5, 192, generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.5, (x * 8).round() / 4, x)
    x = (
        x
        * torch.exp2(torch.randint(-3, 4, (5, 48), generator=generator).float()).repeat_interleave(4, 1)
        * size
    )
    x[2, :64] = 0
    x = x.to(dtype)
    quantized = quantize(x, "hif4")
    expected = [hif4_group(row) for row in x.float().reshape(-1, 64).tolist()]
    assert quantized.scales.flatten().tolist() == [word for _, word in expected]
    assert quantized.dequantize().flatten().tolist() == [value for values, _ in expected for value in values]


def test_the_group_worked_by_hand():
    quantized = quantize(group(_0=7, _1=3, _4=1.3, _8=-0.4, _63=0.1), "hif4")
    assert quantized.scales.tolist() == [0x000101C0]
    assert [int(quantized.codes[i]) for i in (0, 1, 4, 8, 63)] == [7, 3, 3, 10, 0]
    assert [float(quantized.dequantize()[i]) for i in (0, 1, 4, 8, 63)] == [7, 3, 1.5, -0.5, 0]


def test_the_ramp_worked_by_hand():
    quantized = quantize((torch.arange(64) - 31.5) / 8, "hif4")
    assert quantized.scales.tolist() == [0xFC3FC3BC]
    assert quantized.codes[:10].tolist() == [15] * 6 + [14] * 4
    y = quantized.dequantize()
    assert y[:10].tolist() == [-3.5] * 6 + [-3.0] * 4 and y[-1] == 3.5


@pytest.mark.parametrize(("value", "word", "decoded"), [(0.0, 0, 0.0), (1e9, 0xFFFFFFFE, 344064.0)])
def test_the_ends_of_the_scale(value, word, decoded):
    quantized = quantize(torch.full((64,), value), "hif4")
    assert quantized.scales.tolist() == [word]
    assert (quantized.dequantize() == decoded).all()


def test_the_word_takes_its_bits_from_neighbours():
    """Bit 8 + k covers elements 8k to 8k + 7, bit 16 + k elements 4k to 4k + 3."""
    for place in range(0, 64, 5):
        x = torch.full((64,), 1.0)
        x[place] = 7
        levels = HIF4.levels(quantize(x, "hif4"))
        assert levels.of_8[0].nonzero().tolist() == [[place // 8]]
        assert levels.of_4[0].nonzero().tolist() == [[place // 4]]
        assert levels.scale.tolist() == [1]


def test_the_reciprocal_is_rounded_to_bf16_and_multiplied():
    """Dividing by a scale of 1.25 would give other lanes: 1/1.25 is 0.80078125 in BF16."""
    x = group(_0=8.75)
    lanes = torch.linspace(0, 2.4, 63)
    x[1:] = lanes
    quantized = quantize(x, "hif4")
    assert HIF4.levels(quantized).scale == 1.25
    shift = torch.exp2(torch.tensor([2.0] * 3 + [1.0] * 60))
    divided = ((lanes / 1.25 / shift * 4 + 0.5).floor().clamp(max=7)).int()
    assert (quantized.codes[1:].int() != divided).any()


def test_the_scale_is_rounded_twice():
    """amax / 7 just above 1.125 is 1.125 in BF16, and that lies between 1 and 1.25: the even one is 1."""
    x = group(_0=(1.125 + 2.0**-10) / 0.142578125)
    assert x[0] * 0.142578125 > 1.125
    assert HIF4.levels(quantize(x, "hif4")).scale == 1


def test_bytes_are_lanes_low_nibble_first_and_the_little_endian_word():
    x = (torch.arange(64) - 31.5) / 8
    packed = quantize(x, "hif4").packed()
    assert packed["scales"].tolist() == [[0xBC, 0xC3, 0x3F, 0xFC]]
    codes = quantize(x, "hif4").codes
    assert packed["codes"][2] == codes[4] | codes[5] << 4
    assert HIF4.bits_per_value * 64 / 8 == packed["codes"].numel() + packed["scales"].numel()


def test_one_special_number_makes_its_group_nan():
    x = torch.ones(2, 128)
    x[1, 70] = torch.inf
    with pytest.raises(ValueError, match="1 infinite of 256 numbers"):
        quantize(x, "hif4")
    quantized = quantize(x, "hif4", specials="propagate")
    assert quantized.dequantize()[1, 64:].isnan().all()
    assert quantized.dequantize().isnan().sum() == 64
    with pytest.raises(ValueError, match="hif4 got rows of 96; it needs a multiple of 64"):
        quantize(torch.ones(96), "hif4")
