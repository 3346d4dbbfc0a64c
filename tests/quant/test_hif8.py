"""HiF8 against the table of its dot field and the published examples."""

import math

import pytest
import torch

from workbench.quant import FORMATS, quantize
from workbench.quant.elements import ELEMENTS

HIF8 = ELEMENTS["hif8"]
EXAMPLES = {
    1.0625: (0x09, 1.125), 1.1875: (0x0A, 1.25), 3.9: (0x20, 4), 7.75: (0x28, 8), 11.5: (0x2C, 12),
    15.5: (0x40, 16), 18: (0x41, 20), 22: (0x42, 24), 100: (0x4A, 96), 300: (0x60, 256), 320: (0x61, 384),
    448: (0x62, 512), 0.3: (0x32, 0.3125), 0.05: (0x56, 0.046875), -2: (0x90, -2), 2**-15: (0x7E, 2**-15),
    2**-16: (0x07, 2**-16), 1.5 * 2**-16: (0x7E, 2**-15), 2**-22: (0x01, 2**-22), 2**-23: (0x01, 2**-22),
    1.19e-7: (0x00, 0), 40959: (0x6E, 32768), 40960: (0x6F, math.inf), -0.0: (0x00, 0),
}  # fmt: skip


@pytest.mark.parametrize(("x", "code", "value"), [(x, *pair) for x, pair in EXAMPLES.items()])
def test_worked_examples(x, code, value):
    ours = HIF8.encode(torch.tensor(float(x)), "away", "spec")
    assert (int(ours), float(HIF8.decode(ours))) == (code, value)


@pytest.mark.parametrize(
    ("codes", "mantissa_bits", "exponents"),
    [
        (range(0x08, 0x10), 3, [0]),
        (range(0x10, 0x20), 3, [1, -1]),
        (range(0x20, 0x40), 3, [2, 3, -2, -3]),
        (range(0x40, 0x60), 2, [*range(4, 8), *range(-4, -8, -1)]),
        (range(0x60, 0x80), 1, [*range(8, 16), *range(-8, -16, -1)]),
    ],
)
def test_each_dot_covers_its_exponents_in_the_order_of_the_codes(codes, mantissa_bits, exponents):
    values = [(1 + m / 2**mantissa_bits) * 2.0**e for e in exponents for m in range(2**mantissa_bits)]
    ours = HIF8.values[codes.start : codes.stop].tolist()
    assert ours == [math.inf if code == 0x6F else value for code, value in zip(codes, values, strict=True)]


def test_denormals_zero_and_what_is_no_number():
    assert HIF8.values[1:8].tolist() == [2.0**e for e in range(-22, -15)]
    assert HIF8.values[0] == 0 and HIF8.values[0x80].isnan()
    assert HIF8.values[0xEF] == -math.inf
    finite = HIF8.values[HIF8.values.isfinite()]
    assert (finite > 0).sum() == (finite < 0).sum() == 126


def test_all_midpoints_round_away_from_zero():
    positive = HIF8.values[(HIF8.values > 0) & HIF8.values.isfinite()].sort().values
    middle = (positive[1:] + positive[:-1]) / 2
    assert len(middle) == 125
    assert torch.equal(HIF8.round(middle, "away"), positive[1:])
    assert torch.equal(HIF8.round(-middle, "away"), -positive[1:])


def test_the_preset_rounds_as_ascends_cast_does_and_saturates():
    x = torch.tensor([1.0625, 40960.0, -1e9])
    assert quantize(x, "hif8").dequantize().tolist() == [1.125, 32768, -32768]
    assert FORMATS["hif8"].bits_per_value == 8
