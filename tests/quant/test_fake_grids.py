"""round_values, which does arithmetic on values, against Element.round, which looks up codes."""

import math

import pytest
import torch

from workbench.quant import ELEMENTS
from workbench.quant.grids import round_values

# Without a zero a format is a scale, and 31-bit integers have more digits than fp32.
COVERED = [name for name in ELEMENTS if name not in ("e8m0", "e6m2", "int31")]


def numbers(element):
    """Every value, every midpoint and the fp32 numbers beside it; all fp16 and bf16; any bits; the ends."""
    values = element.values[element.values.isfinite()].double().unique()
    middle = ((values[1:] + values[:-1]) / 2).float()
    generator = torch.Generator().manual_seed(0)
    some = torch.randint(-(2**31), 2**31, (200_000,), generator=generator).int().view(torch.float32)
    all_16 = torch.arange(-(2**15), 2**15).to(torch.int16)
    beside = [middle.nextafter(torch.full_like(middle, end)) for end in (-math.inf, math.inf)]
    far = torch.tensor([element.largest, 3.4e38, 1e-45, 0.0])
    far = torch.cat((far, far * 1.01, far.nextafter(torch.full_like(far, math.inf))))
    parts = [values.float(), middle, *beside, all_16.view(torch.float16).float(), some, far, -far]
    x = torch.cat((*parts, all_16.view(torch.bfloat16).float()))
    x = x[x.isfinite()]
    return x if (element.values < 0).any() else x.abs()


@pytest.mark.parametrize("overflow", ["saturate", "spec"])
@pytest.mark.parametrize("ties", ["even", "away", "zero"])
@pytest.mark.parametrize("name", COVERED)
def test_values_are_those_of_the_codes_bit_for_bit(name, ties, overflow):
    element = ELEMENTS[name]
    x = numbers(element)
    y, expected = round_values(x, element, ties, overflow), element.round(x, ties, overflow)
    is_nan = expected.isnan()
    assert torch.equal(y.isnan(), is_nan)
    assert torch.equal(y[~is_nan].view(torch.int32), expected[~is_nan].view(torch.int32))
