"""Block formats against slow loops in exact fractions, and the worked examples of the scale rules."""

import dataclasses
import math

import pytest
import torch

from tests.oracles.number_formats import mx_block, scaled_block
from workbench.quant import ELEMENTS, FORMATS, BlockFormat, quantize

MX = [n for n, f in FORMATS.items() if isinstance(f, BlockFormat) and f.scale and f.scale.name == "e8m0"]
SCALED = [n for n, f in FORMATS.items() if isinstance(f, BlockFormat) and f.scale is None]
BLOCKS = [n for n, f in FORMATS.items() if isinstance(f, BlockFormat)]
ALL = list(FORMATS)


def rich_in_ties(*shape, seed=0, octaves=8):
    """Half normal numbers, half multiples of 1/8, in blocks of very different size."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    coarse = (x * 16).round() / 8
    x = torch.where(torch.rand(shape, generator=generator) < 0.5, coarse, x)
    size = torch.randint(-octaves, octaves + 1, (*shape[:-1], shape[-1] // 32), generator=generator)
    return x * torch.exp2(size.float()).repeat_interleave(32, dim=-1)


def cells(fmt, shape):
    """The slices of each block: its rows and its columns."""
    rows, columns = shape
    r, c = fmt.rows or rows, fmt.columns or columns
    for top in range(0, rows, r):
        for left in range(0, columns, c):
            yield slice(top, top + r), slice(left, left + c)


@pytest.mark.parametrize("name", MX)
def test_blocks_under_powers_of_two_are_those_of_a_loop(name):
    fmt = FORMATS[name]
    x = rich_in_ties(3, 256)
    x[1, :128] = 0
    quantized = quantize(x, name)
    y, scales = quantized.dequantize(), quantized.scales.flatten().tolist()
    for cell, code in zip(cells(fmt, x.shape), scales, strict=True):
        values, expected = mx_block(
            x[cell].flatten().tolist(), fmt.element.name, fmt.rule, fmt.element.mantissa_bits, fmt.ties,
            max(fmt.least_amax, fmt.least_scale),
        )  # fmt: skip
        assert code == expected
        assert y[cell].flatten().tolist() == values


@pytest.mark.parametrize("rule", ["floor", "ceil", "rceil", "even"])
@pytest.mark.parametrize("element", ["e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2", "e1m2"])
@pytest.mark.parametrize("ties", ["even", "away", "zero"])
def test_every_rule_with_every_element_and_every_rule_for_ties(rule, element, ties):
    fmt = dataclasses.replace(
        FORMATS["mxfp4"], name="made", element=ELEMENTS[element], rule=rule, ties=ties, least_scale=0.0
    )
    x = rich_in_ties(8, 64, seed=3)
    quantized = quantize(x, fmt)
    y = quantized.dequantize()
    for cell, code in zip(cells(fmt, x.shape), quantized.scales.flatten().tolist(), strict=True):
        mantissa_bits = ELEMENTS[element].mantissa_bits
        values, expected = mx_block(x[cell].flatten().tolist(), element, rule, mantissa_bits, ties)
        assert code == expected
        assert y[cell].flatten().tolist() == values


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_under_fp32_scales_are_those_of_a_loop(name, dtype):
    fmt = FORMATS[name]
    x = rich_in_ties(3, 256, octaves=2).to(dtype)
    x[1, :128] = 0
    quantized = quantize(x, name)
    y, scales = quantized.dequantize(), quantized.scales.flatten().tolist()
    for cell, scale in zip(cells(fmt, x.shape), scales, strict=True):
        values, expected = scaled_block(
            x[cell].flatten().tolist(), fmt.element.name, fmt.least_amax, fmt.least_scale, fmt.order
        )
        assert scale == float(expected)
        assert y[cell].flatten().tolist() == [float(value) for value in values]


def test_the_order_of_operations_decides_ties_of_bf16_numbers():
    x = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    div = quantize(x, "fp8_e4m3_1x128")
    mul_inv = quantize(x, dataclasses.replace(div.format, order="mul_inv"))
    assert torch.equal(div.scales, mul_inv.scales)
    differ = (div.codes != mul_inv.codes).double().mean()
    assert 1e-4 < differ < 1e-2
    for o in range(3):
        block = x[o, :128].float()
        values, _ = scaled_block(block.tolist(), "e4m3fn", 1e-4, 0, "mul_inv")
        assert mul_inv.dequantize()[o, :128].tolist() == [float(value) for value in values]


# amax -> exponent of the scale, and the value of amax, under floor, ceil, rceil, even.
EXAMPLES = {
    "e2m1": {
        4.0: [(0, 4), (0, 4), (0, 4), (0, 4)], 4.5: [(0, 4), (1, 4), (0, 4), (0, 4)],
        6.0: [(0, 6), (1, 6), (0, 6), (0, 6)], 6.01: [(0, 6), (1, 6), (1, 6), (0, 6)],
        6.5: [(0, 6), (1, 6), (1, 6), (0, 6)], 7.0: [(0, 6), (1, 8), (1, 8), (1, 8)],
        7.99: [(0, 6), (1, 8), (1, 8), (1, 8)], 8.0: [(1, 8), (1, 8), (1, 8), (1, 8)],
    },
    "e4m3fn": {
        448: [(0, 448), (1, 448), (0, 448), (0, 448)], 449: [(0, 448), (1, 448), (1, 448), (0, 448)],
        480: [(0, 448), (1, 480), (1, 480), (0, 448)], 500: [(0, 448), (1, 512), (1, 512), (1, 512)],
    },
}  # fmt: skip


@pytest.mark.parametrize("element", EXAMPLES)
@pytest.mark.parametrize(("place", "rule"), list(enumerate(["floor", "ceil", "rceil", "even"])))
def test_worked_examples_of_the_scale_rules(element, place, rule):
    fmt = dataclasses.replace(FORMATS["mxfp4"], name="made", element=ELEMENTS[element], rule=rule)
    for amax, expected in EXAMPLES[element].items():
        x = torch.zeros(32)
        x[7] = -amax
        quantized = quantize(x, fmt)
        assert (int(quantized.scales) - 127, -float(quantized.dequantize()[7])) == expected[place], amax


@pytest.mark.parametrize("rule", ["floor", "rceil", "ceil", "even"])
def test_no_amax_next_to_a_power_of_two_is_misread(rule):
    """A logarithm in floating point rounds 8 - 2^-21 up to 3."""
    fmt = dataclasses.replace(FORMATS["mxfp4"], name="made", rule=rule, least_scale=0.0)
    powers = torch.exp2(torch.arange(-120, 121).float())
    starts = torch.cat((powers, powers * 1.5, powers * 1.75))
    amax = torch.cat((starts, starts.nextafter(torch.tensor(0.0)), starts.nextafter(torch.tensor(math.inf))))
    x = torch.zeros(len(amax), 32)
    x[:, 3] = amax
    codes = quantize(x, fmt).scales[:, 0].tolist()
    assert codes == [mx_block([a], "e2m1", rule, 1)[1] for a in amax.tolist()]


def test_the_reciprocal_of_the_largest_gives_the_exact_exponent_for_every_mantissa():
    """rceil multiplies with fp32(1 / max); over all 2^23 mantissas that reads the exponent of a / max."""
    amax = (torch.arange(2**23).int() + (127 << 23)).view(torch.float32)
    for element in ("e2m1", "e4m3fn", "e5m2", "e2m3", "e3m2"):
        largest = ELEMENTS[element].largest
        exact = torch.frexp(amax.double() / largest)
        ceil = exact.exponent - (exact.mantissa == 0.5).int()
        ratio = amax * torch.tensor(1 / largest)
        assert torch.equal((ratio.view(torch.int32) + 0x7FFFFF >> 23) - 127, ceil)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *[
            ("fp8_e4m3_1x128", 1e-4 / 448),
            ("fp8_e4m3_1x128_ue8m0", 2.0**-22),
            ("fp8_e4m3_128x128_ue8m0", 2.0**-22),
        ],
        *[
            ("mxfp4_v4", 2.0**-126),
            ("mxfp4", 2.0**-127),
            ("mxfp8_e4m3", 2.0**-127),
            ("nvfp4_single", 2.0**-9),
        ],
        *[("kv_v41", 2.0**-9), ("int8_token", 2.0**-126), ("nvfp4", 2.0**-9 * 2.0**-126)],
    ],
)
def test_a_block_of_zeros_has_the_documented_scale_and_stays_zero(name, scale):
    quantized = quantize(torch.zeros(128, 128), name)
    torch.testing.assert_close(quantized.block_scales().unique(), torch.tensor([scale]), rtol=1e-7, atol=0)
    assert (quantized.dequantize() == 0).all()


@pytest.mark.parametrize(
    ("name", "amax", "code"),
    # The scale is a power of two that clips nothing: 448 fits scale 1, 449 needs 2. Next to nothing counts as
    # amax 1e-4 in FP8 and as 6 · 2^-126 in FP4.
    [
        *[
            ("fp8_e4m3_128x128_ue8m0", amax, code)
            for amax, code in ((448, 127), (449, 128), (224, 126), (1e-9, 105))
        ],
        *[
            ("mxfp4_v4", amax, code)
            for amax, code in ((6, 127), (6.01, 128), (3, 126), (4.5, 127), (1e-45, 1))
        ],
    ],
)
def test_the_scale_of_a_block_is_v4s(name, amax, code):
    x = torch.zeros(1, 64)
    x[0, 5] = -amax
    assert quantize(x, name).scales[0, 0] == code


def test_a_v3_block_worked_by_hand():
    x = torch.zeros(128)
    x[:5] = torch.tensor([1, -0.3, 0.01, 3.5, -7])
    for name, scale in (("fp8_e4m3_1x128", 2.0**-6), ("fp8_e4m3_1x128_ue8m0", 121)):
        quantized = quantize(x, name)
        assert quantized.scales.tolist() == [scale]
        assert quantized.codes[:5].tolist() == [0x68, 0xDA, 0x32, 0x76, 0xFE]
        assert quantized.dequantize()[:5].tolist() == [1, -0.3125, 0.009765625, 3.5, -7]


def test_the_same_block_in_three_kinds_of_mxfp4():
    x = torch.zeros(32)
    x[:6] = torch.tensor([0.3, -1.1, 2.4, 5.1, -6.9, 0.07])
    for name, values in (
        ("mxfp4", [0.5, -1, 2, 6, -6, 0]),
        ("mxfp4_even", [0.5, -1, 2, 6, -6, 0]),
        ("mxfp4_v4", [0, -1, 2, 6, -6, 0]),
    ):
        assert quantize(x, name).dequantize()[:6].tolist() == values


def test_two_dimensional_blocks_may_end_with_the_matrix_and_others_have_to_divide(rand):
    x = rand(3, 130, 257)
    quantized = quantize(x, "fp8_e4m3_128x128_ue8m0")
    assert quantized.scales.shape == (3, 2, 3)
    for name in ("fp8_e4m3_1x128", "mxfp4", "mxfp6_e2m3", "int4_group128"):
        with pytest.raises(ValueError, match=rf"quantize: {name} got 257 columns; it needs a multiple of"):
            quantize(x, name)
    with pytest.raises(ValueError, match="blocks of 128 rows need two axes"):
        quantize(rand(256), "fp8_e4m3_128x128")
    strict = dataclasses.replace(FORMATS["fp8_e4m3_128x128"], cuts_blocks=False)
    with pytest.raises(ValueError, match="got 130 rows; it needs a multiple of 128"):
        quantize(rand(130, 256), strict)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_or_make_their_block_nan_and_no_other(name, special, rand):
    fmt = FORMATS[name]
    x = rand(2, 256)
    clean = quantize(x, name).dequantize()
    x[1, 200] = special
    with pytest.raises(
        ValueError, match=r"got [01] NaN and [01] infinite of 512 numbers.*specials='propagate'"
    ):
        quantize(x, name)
    quantized = quantize(x, name, specials="propagate")
    is_nan = quantized.dequantize().isnan()
    rows = slice(None) if fmt.rows != 1 else slice(1, 2)
    columns = fmt.columns or 256
    first = 200 // columns * columns
    if fmt.rows is None:
        rows, first, columns = slice(None), 0, 256
    expected = torch.zeros(2, 256, dtype=torch.bool)
    expected[rows, first : first + columns] = True
    assert torch.equal(is_nan, expected)
    if quantized.tensor_scale is None:
        assert torch.equal(quantized.dequantize()[~is_nan], clean[~is_nan])
    if fmt.scale is not None:
        assert (quantized.scales == 2**fmt.scale.bits - 1).sum() == 1


@pytest.mark.parametrize("name", ALL)
def test_no_rows_are_no_numbers(name):
    width = 512 if name == "kv_v4" else 256
    assert quantize(torch.zeros(0, width), name).dequantize().shape == (0, width)


def test_the_largest_numbers_clip_or_overflow_as_the_rule_says():
    x = torch.full((32,), 3e38)
    assert (quantize(x, "mxfp4").dequantize() == 6 * 2.0**125).all()
    assert quantize(x, "mxfp4").scales == 252
    assert quantize(x, "mxfp4_v4").dequantize().isinf().all()  # 4 · 2^126


def test_bad_choices_are_refused_with_the_good_ones():
    x = torch.ones(2, 32)
    with pytest.raises(
        ValueError, match=r"format 'mxpf4' is unknown; did you mean mxfp4, .*choose one of \["
    ):
        quantize(x, "mxpf4")
    with pytest.raises(ValueError, match=r"'fp8' is unknown; did you mean fp8_e4m3_tensor, fp8_e4m3_1x128"):
        quantize(x, "fp8")
    with pytest.raises(ValueError, match=r"got format None; it needs a name such as"):
        quantize(x, None)
    with pytest.raises(ValueError, match="got int64; needs float32, bfloat16 or float16"):
        quantize(x.long(), "mxfp4")
    with pytest.raises(ValueError, match=r"got a ndarray; needs a tensor"):
        quantize(x.numpy(), "mxfp4")
    for field, value in dict(rule="round", ties="up", order="inv").items():
        with pytest.raises(ValueError, match=f"made: got {field} '{value}'; choose one of"):
            dataclasses.replace(FORMATS["mxfp4"], name="made", **{field: value})
    with pytest.raises(ValueError, match="made got blocks of 1 × 0; sizes are whole numbers from 1"):
        dataclasses.replace(FORMATS["mxfp4"], name="made", columns=0)
    with pytest.raises(ValueError, match="made: got overflow 'wrap'; choose one of"):
        dataclasses.replace(FORMATS["e4m3fn"], name="made", overflow="wrap")
    with pytest.raises(ValueError, match="encode: got overflow 'wrap'; choose one of"):
        ELEMENTS["e4m3fn"].encode(x, overflow="wrap")
    for name in ("hif4", "kv_v4"):
        with pytest.raises(ValueError, match=f"{name} got "):
            quantize(torch.tensor(1.0), name)
    with pytest.raises(ValueError, match="got rows of no numbers"):
        quantize(torch.zeros(2, 0), "int8_token_asymmetric")
    with pytest.raises(ValueError, match=r"got specials 'ignore'; choose one of \['raise', 'propagate'\]"):
        quantize(x, "mxfp4", specials="ignore")
    with pytest.raises(ValueError, match="made got rule 'amax' for e2m1 with scales in e8m0"):
        dataclasses.replace(FORMATS["mxfp4"], name="made", rule="amax")
    with pytest.raises(ValueError, match="made got rule 'floor' for e2m1 with scales in ue4m3"):
        dataclasses.replace(FORMATS["nvfp4_single"], name="made", rule="floor")
    with pytest.raises(
        ValueError, match="made got order 'mul_inv' with rounded scales or without least_amax"
    ):
        dataclasses.replace(FORMATS["mxfp4"], name="made", order="mul_inv")
    with pytest.raises(ValueError, match="made got order 'mul_inv'"):
        dataclasses.replace(FORMATS["int8_token"], name="made", order="mul_inv")


def test_stochastic_blocks_need_a_generator_and_are_unbiased():
    fmt = dataclasses.replace(FORMATS["mxfp4_v4"], name="made", ties="stochastic")
    x = torch.full((20_000, 32), 0.3)
    x[:, 0] = 6
    with pytest.raises(ValueError, match="got no generator"):
        quantize(x, fmt)
    y = quantize(x, fmt, generator=torch.Generator().manual_seed(0)).dequantize()[:, 1:].double()
    assert sorted(y.unique().tolist()) == [0, 0.5]
    assert abs(y.mean() - 0.3) < 4 * (0.3 * 0.2 / y.numel()) ** 0.5


def test_the_preset_says_everything_that_libraries_leave_to_habit():
    for name in BLOCKS:
        fmt = FORMATS[name]
        assert fmt.least_amax > 0 or fmt.least_scale > 0, f"{name} names no guard against zeros"
        assert fmt.name == name
