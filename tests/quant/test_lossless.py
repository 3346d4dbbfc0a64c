"""FP4 as FP8 and as NVFP4 without rounding, and where that ends."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.number_formats import GRIDS
from workbench.quant import FORMATS, fp4_to_fp8, mxfp4_to_nvfp4, quantize, scale_ratios

QUICK = settings(deadline=None, max_examples=30)


def two_scales(exponent, values=(0.5,)):
    """A row with scale 2^exponent for its first 32 numbers and scale 1 for the next."""
    x = torch.zeros(1, 64)
    x[0, 0] = 6 * 2.0**exponent
    x[0, 32] = 6
    x[0, 33 : 33 + len(values)] = torch.tensor([float(v) for v in values])
    return quantize(x, "mxfp4_v4")


def test_enumerated_every_fp4_value_survives_shifts_from_minus_8_to_6():
    grid = set(GRIDS["e4m3fn"])
    kept = [
        k
        for k in range(-20, 20)
        if all(v * 2**k in grid if k >= 0 else v / 2**-k in grid for v in GRIDS["e2m1"])
    ]
    assert kept == list(range(-8, 7))
    normal = [k for k in kept if all(v == 0 or v * 2.0**k >= 2.0**-6 for v in GRIDS["e2m1"])]
    assert normal == list(range(-5, 7))


@pytest.mark.parametrize(
    ("exponent", "is_exact", "is_normal"), [(11, True, True), (12, True, False), (14, True, False)]
)
def test_up_to_2_to_the_14_is_exact_and_up_to_2_to_the_11_normal(exponent, is_exact, is_normal):
    quantized = two_scales(exponent, GRIDS["e2m1"])
    converted = fp4_to_fp8(quantized)
    assert torch.equal(converted.dequantize(), quantized.dequantize()) == is_exact
    numbers = converted.format.element.decode(converted.codes)
    assert bool((numbers[numbers != 0].abs() >= 2.0**-6).all()) == is_normal
    if not is_normal:
        with pytest.raises(
            ValueError, match=rf"reaches 2\^{exponent} .* and 0 numbers would change; it needs 2\^11"
        ):
            fp4_to_fp8(quantized, normals_only=True)


def test_past_2_to_the_14_a_number_that_would_change_is_refused_and_the_ratio_named():
    with pytest.raises(
        ValueError, match=r"reaches 2\^15 in a block of 128 × 128, and 1 numbers would change"
    ):
        fp4_to_fp8(two_scales(15))
    even = two_scales(15, (2.0, -4.0))  # no odd multiple of the step: nothing is lost
    assert torch.equal(fp4_to_fp8(even).dequantize(), even.dequantize())
    with pytest.raises(ValueError, match=r"reaches 2\^120"):
        fp4_to_fp8(two_scales(120))


def test_a_number_that_would_vanish_even_in_fp32_is_refused():
    x = torch.zeros(1, 64)
    x[0, 0], x[0, 32] = 2.0**100, 2.0**-100
    with pytest.raises(ValueError, match=r"reaches 2\^200 .* and 1 numbers would change"):
        fp4_to_fp8(quantize(x, "mxfp4_v4"))


def test_blocks_of_zeros_are_no_part_of_the_ratio():
    x = torch.zeros(3, 160)
    x[0, :3] = torch.tensor([6.0, 0.5, -3.0])
    x[1, 32:64] = -0.0
    quantized = quantize(x, "mxfp4_v4")
    assert scale_ratios(quantized).tolist() == [[0, -1]]
    assert torch.equal(fp4_to_fp8(quantized).dequantize(), quantized.dequantize())


@QUICK
@given(
    rows=st.integers(1, 200), blocks=st.integers(1, 9), seed=st.integers(0, 2**20), spread=st.integers(0, 14)
)
def test_the_ratios_are_those_of_a_loop_and_the_conversion_keeps_every_number(rows, blocks, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 32 * blocks, generator=generator)
    shift = torch.randint(0, 1 + spread // 2, (rows, blocks), generator=generator)
    x = x * torch.exp2(shift.float()).repeat_interleave(32, dim=1)
    x[torch.rand(rows, 1, generator=generator)[:, 0] < 0.2] = 0
    quantized = quantize(x, "mxfp4_v4")
    ratios = scale_ratios(quantized)
    assert ratios.shape == (-(-rows // 128), -(-blocks // 4))
    for R, C in torch.cartesian_prod(*(torch.arange(n) for n in ratios.shape)).reshape(-1, 2).tolist():
        seen = []
        for o in range(128 * R, min(rows, 128 * R + 128)):
            for c in range(4 * C, min(blocks, 4 * C + 4)):
                if quantized.dequantize()[o, 32 * c : 32 * c + 32].any():
                    seen.append(int(quantized.scales[o, c]))
        assert ratios[R, C] == (max(seen) - min(seen) if seen else -1)
    converted = fp4_to_fp8(quantized)
    assert converted.format is FORMATS["fp8_e4m3_128x128_ue8m0"]
    assert torch.equal(converted.dequantize(), quantized.dequantize())
    again = mxfp4_to_nvfp4(quantized)
    assert again.codes is quantized.codes
    assert torch.equal(again.dequantize(), quantized.dequantize())


def test_nvfp4_holds_ratios_up_to_2_to_the_17():
    quantized = two_scales(17)
    converted = mxfp4_to_nvfp4(quantized)
    assert torch.equal(converted.dequantize(), quantized.dequantize())
    assert converted.scales.tolist() == [[0x78, 0x78, 0x01, 0x01]]  # 2^8 and 2^-9
    assert converted.tensor_scale == 2.0 ** (17 - 8)
    with pytest.raises(ValueError, match=r"ratio reaches 2\^18; E4M3 holds powers of two over 2\^17"):
        mxfp4_to_nvfp4(two_scales(18))


def test_the_new_scale_lies_six_powers_below_the_greatest():
    assert fp4_to_fp8(two_scales(3)).scales.tolist() == [[127 + 3 - 6]]


def test_other_formats_are_refused(rand):
    for name in ("nvfp4", "mxfp8_e4m3", "hif4"):
        with pytest.raises(ValueError, match=f"scale_ratios: got {name}; it needs FP4 in blocks of 1 × 32"):
            scale_ratios(quantize(rand(2, 64), name))
    renamed = dataclasses.replace(FORMATS["mxfp4_v4"], name="mine")
    assert scale_ratios(quantize(rand(2, 64), renamed)).shape == (1, 1)
