"""What holds for every format: rounding twice, minus x, order, powers of two, dtype and layout of input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.quant import FORMATS, BlockFormat, quantize
from workbench.quant.fixed_point import FixedPointFormat

QUICK = settings(deadline=None, max_examples=30)
ALL = list(FORMATS)
BLOCKS = [n for n, f in FORMATS.items() if isinstance(f, BlockFormat)]
# Offsets are for what is not symmetric, and an MLU position leaves room for -2^(n-1), which has no positive
# counterpart. Rounding can lower the amax of a HiF4 group and of a whole tensor, which moves the scale of a
# second pass.
ODD = [n for n in ALL if "asymmetric" not in n and "offset" not in n and not n.startswith("mlu_int8_pos")]
ODD = [n for n in ODD if n != "mlu_int16_pos"]
ONE_SCALE = [
    n for n, f in FORMATS.items() if isinstance(f, FixedPointFormat) or getattr(f, "rows", 1) is None
]
ONE_SCALE += ["nvfp4", "nvfp4_46"]
STABLE = [n for n in ODD if n not in ("hif4", "nvfp4", "nvfp4_46")]


def numbers(name, seed, dtype=torch.bfloat16):
    width = 512 if name == "kv_v4" else 256
    return torch.randn(4, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


@QUICK
@given(
    rows=st.integers(1, 140), blocks=st.integers(1, 6), seed=st.integers(0, 2**20), size=st.floats(1e-6, 1e4)
)
@pytest.mark.parametrize("name", ["fp8_e4m3_128x128_ue8m0", "mxfp4_v4"])
def test_v4s_rounding_never_clips_errs_by_half_a_step_and_is_idempotent(name, rows, blocks, seed, size):
    fmt = FORMATS[name]
    x = torch.randn(rows, 32 * blocks, generator=torch.Generator().manual_seed(seed)) * size
    once = quantize(x, name).dequantize()
    assert torch.equal(quantize(once, name).dequantize(), once)
    # Half a step of the mantissa, or of the subnormals; the smallest scale of a block is amax / largest.
    relative = 2.0 ** -(fmt.element.mantissa_bits + 1)
    step = 2.0 ** (1 - fmt.element.bias - fmt.element.mantissa_bits)
    scale = 2 * max(float(x.abs().max()), fmt.least_amax) / fmt.element.largest
    assert ((once - x).abs() <= x.abs() * relative + step / 2 * scale).all()


@QUICK
@given(seed=st.integers(0, 2**20))
@pytest.mark.parametrize("name", ALL)
def test_dtype_and_layout_of_the_input_do_not_matter(name, seed):
    x = numbers(name, seed)
    y = quantize(x, name).dequantize()
    assert torch.equal(quantize(x.float(), name).dequantize(), y)
    with_gaps = torch.stack((x, x + 1), dim=-1).transpose(0, 1)[..., 0].T
    assert not with_gaps.is_contiguous()
    assert torch.equal(quantize(with_gaps, name).dequantize(), y)
    if name not in ONE_SCALE:
        batched = quantize(x.unflatten(0, (2, 2)), name).dequantize()
        halves = [quantize(part, name).dequantize() for part in x.chunk(2)]
        assert torch.equal(batched, torch.stack(halves))


@QUICK
@given(seed=st.integers(0, 2**20))
@pytest.mark.parametrize("name", STABLE)
def test_rounding_twice_changes_nothing(name, seed):
    once = quantize(numbers(name, seed), name).dequantize()
    assert torch.equal(quantize(once, name).dequantize(), once)


@QUICK
@given(seed=st.integers(0, 2**20))
@pytest.mark.parametrize("name", ODD)
def test_minus_x_rounds_to_minus_the_value(name, seed):
    x = numbers(name, seed)
    assert torch.equal(quantize(-x, name).dequantize(), -quantize(x, name).dequantize())


@QUICK
@given(seed=st.integers(0, 2**20), shift=st.integers(-6, 6))
@pytest.mark.parametrize(
    "name", [n for n in BLOCKS if FORMATS[n].scale is None or FORMATS[n].scale.name == "e8m0"]
)
def test_a_power_of_two_goes_through(name, seed, shift):
    x = numbers(name, seed)
    assert torch.equal(
        quantize(x * 2.0**shift, name).dequantize(), quantize(x, name).dequantize() * 2.0**shift
    )


@QUICK
@given(seed=st.integers(0, 2**20))
@pytest.mark.parametrize("name", ALL)
def test_order_within_a_row_is_kept_inside_a_block(name, seed):
    x = numbers(name, seed)
    block = 16 if "nvfp4" in name or name == "kv_v41" else 4 if name == "hif4" else 32
    x = x.unflatten(1, (-1, block)).sort(dim=-1).values.flatten(1)
    y = quantize(x, name).dequantize().unflatten(1, (-1, block))[:, :7]  # kv_v4: blocks of the FP8 part
    assert (y.diff(dim=-1) >= 0).all()


@QUICK
@given(seed=st.integers(0, 2**20))
@pytest.mark.parametrize(
    "name", [n for n in ALL if "nvfp4" in n or n.startswith(("mxfp", "hif4", "int4_group"))]
)
def test_permuted_blocks_give_permuted_values(name, seed):
    block = 64 if name == "hif4" else FORMATS[name].columns
    x = numbers(name, seed).unflatten(1, (-1, block))
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
    y = quantize(x.flatten(1), name).dequantize().unflatten(1, (-1, block))
    assert torch.equal(
        quantize(x[:, order].flatten(1), name).dequantize().unflatten(1, (-1, block)), y[:, order]
    )
