"""NVFP4 against a loop in fp32 steps, and the worked block."""

import math

import pytest
import torch

from tests.oracles.number_formats import nvfp4_tensor
from workbench.quant import FORMATS, quantize

KINDS = {
    "nvfp4": dict(levels=2),
    "nvfp4_single": dict(levels=1),
    "nvfp4_46": dict(levels=2, top=256, targets=(6, 4)),
}


def rich_in_ties(*shape):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.5, (x * 8).round() / 4, x)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e5, 3e-38])
def test_values_and_scales_are_those_of_a_loop(name, size):
    x = rich_in_ties(6, 64) * size
    x[2] = 0
    x[3, :16] *= 1e-3
    quantized = quantize(x, name)
    values, scales, g = nvfp4_tensor(x.reshape(-1, 16).tolist(), **KINDS[name])
    assert quantized.dequantize().flatten().tolist() == [float(value) for value in values]
    assert quantized.format.scale.decode(quantized.scales).flatten().tolist() == [float(s) for s in scales]
    if name == "nvfp4_single":
        assert quantized.tensor_scale is None
    else:
        assert float(quantized.tensor_scale) == float(g)


def test_the_block_worked_by_hand():
    x = torch.zeros(16)
    x[:6] = torch.tensor([0.3, -1.1, 2.4, 5.1, -6.9, 0.07])
    quantized = quantize(x, "nvfp4_single")
    assert quantized.scales.tolist() == [0x39]  # 1.15 -> 1.125, so that 6.9 / s is past 6 and saturates
    assert quantized.dequantize()[:6].tolist() == [0.5625, -1.125, 2.25, 4.5, -6.75, 0]


def test_with_two_levels_the_largest_stored_scale_is_448_and_with_four_over_six_256_or_384():
    x = rich_in_ties(8, 64)
    assert quantize(x, "nvfp4").scales.max() == 0x7E
    stored = FORMATS["nvfp4_46"].scale.decode(quantize(x, "nvfp4_46").scales)
    assert stored.max() in (256, 384)


def test_four_over_six_never_errs_more_than_six_alone():
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    by_six = FORMATS["nvfp4_46"].__class__(**{**vars_of("nvfp4_46"), "name": "six", "targets": (6.0,)})
    errors = []
    for fmt in (FORMATS["nvfp4_46"], by_six):
        wrong = (quantize(x, fmt).dequantize() - x).double().square()
        errors.append(wrong.unflatten(1, (-1, 16)).sum(-1))
    assert (errors[0] <= errors[1]).all()
    share = float((errors[0] < errors[1]).double().mean())
    assert 0.40 < share < 0.50  # 45% of blocks on a large normal sample


def vars_of(name):
    fmt = FORMATS[name]
    return {field: getattr(fmt, field) for field in fmt.__dataclass_fields__}


def test_a_special_number_makes_its_block_nan_and_leaves_the_tensor_scale_to_the_others():
    x = rich_in_ties(2, 32)
    x[0, 3] = math.inf
    quantized = quantize(x, "nvfp4", specials="propagate")
    assert quantized.dequantize()[0, :16].isnan().all()
    assert quantized.dequantize()[1].isfinite().all()
    assert quantized.tensor_scale == x[x.isfinite()].view(-1)[15 - 3 :].abs().max() / 2688
