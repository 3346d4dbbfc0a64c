"""Element formats against ml_dtypes, en_dtypes, torch's own types, gfloat, and the published tables."""

import math
import re

import en_dtypes
import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.number_formats import GRIDS, nearest, signed
from workbench.quant.elements import ELEMENTS
from workbench.quant.floats import FloatFormat

QUICK = settings(deadline=None, max_examples=30)
FLOATS = [name for name in ELEMENTS if not name.startswith("int")]
SIGNED = [name for name in FLOATS if ELEMENTS[name].is_signed]
ML = {
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
}
EN = {
    "hif8": en_dtypes.hifloat8,
    "e1m2": en_dtypes.float4_e1m2,
    "e2m1": en_dtypes.float4_e2m1,
    "e2m3": en_dtypes.float6_e2m3,
    "e3m2": en_dtypes.float6_e3m2,
}
TORCH = {
    "e4m3fn": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "e4m3fnuz": torch.float8_e4m3fnuz,
    "e5m2fnuz": torch.float8_e5m2fnuz,
    "e8m0": torch.float8_e8m0fnu,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
GFLOAT = {
    "e4m3fn": gfloat.formats.format_info_ocp_e4m3,
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e2m3": gfloat.formats.format_info_ocp_e2m3,
    "e3m2": gfloat.formats.format_info_ocp_e3m2,
    "e2m1": gfloat.formats.format_info_ocp_e2m1,
    "e8m0": gfloat.formats.format_info_ocp_e8m0,
    "bf16": gfloat.formats.format_info_bfloat16,
    "fp16": gfloat.formats.format_info_binary16,
}
PACKAGES = [("ml_dtypes", name, dtype) for name, dtype in ML.items()]
PACKAGES += [("en_dtypes", name, dtype) for name, dtype in EN.items()]
IDS = [f"{package}-{name}" for package, name, _ in PACKAGES]
TIES = {"hif8": "away"}  # what each package rounds ties of a format to, where it is not even


def assert_same_bits(ours, theirs):
    """Equal down to the sign of zero; any NaN equals any NaN."""
    assert torch.equal(ours.isnan(), theirs.isnan())
    finite = ~ours.isnan()
    assert torch.equal(ours[finite].view(torch.int32), theirs[finite].view(torch.int32))


def every_code(fmt):
    return torch.arange(2**fmt.bits).to(fmt.code_dtype)


def bits_of(values):
    """Arrays of small types as their codes."""
    return torch.from_numpy(
        values.view(np.uint8 if values.dtype.itemsize == 1 else np.uint16).astype(np.int32)
    )


def sixteen_bit_numbers(dtype):
    return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)


def adversarial(name):
    """Every value, every midpoint, their fp32 neighbours, and the ends of fp32, with both signs."""
    grid = torch.tensor([float(v) for v in GRIDS[name]], dtype=torch.float64)
    grid = torch.cat((grid, grid[-1:] * 2 - grid[-2:-1], grid[-1:] * 2)).clamp(
        max=torch.finfo(torch.float32).max
    )
    middle = (grid[1:] + grid[:-1]) / 2
    x = torch.cat((grid, middle)).float()
    inf = torch.tensor(math.inf)
    x = torch.cat(
        (x, x.nextafter(inf), x.nextafter(-inf), torch.tensor([1e-45, 1e-38, 2.0**-126, 3e38, 1e9]))
    )
    return torch.cat((x, -x))


@pytest.mark.parametrize(("package", "name", "dtype"), PACKAGES, ids=IDS)
def test_every_code_means_what_other_packages_say(package, name, dtype):
    fmt = ELEMENTS[name]
    codes = every_code(fmt)
    theirs = codes.numpy().astype(np.uint8 if fmt.bits <= 8 else np.uint16).view(dtype).astype(np.float32)
    assert_same_bits(fmt.decode(codes), torch.from_numpy(theirs))


@pytest.mark.parametrize("name", TORCH)
def test_every_code_means_what_torch_says(name):
    fmt = ELEMENTS[name]
    stored = every_code(fmt).to(torch.uint8 if fmt.bits == 8 else torch.int16)
    assert_same_bits(fmt.decode(every_code(fmt)), stored.view(TORCH[name]).float())


@pytest.mark.parametrize("name", GFLOAT)
def test_every_code_means_what_gfloat_says(name):
    fmt = ELEMENTS[name]
    codes = every_code(fmt)[:: 1 if fmt.bits <= 8 else 37]
    theirs = [gfloat.decode_float(GFLOAT[name], int(code)).fval for code in codes]
    assert_same_bits(fmt.decode(codes), torch.tensor(theirs, dtype=torch.float32))


@pytest.mark.parametrize("name", GRIDS)
def test_the_values_are_those_of_the_published_tables(name):
    fmt = ELEMENTS[name]
    values = fmt.values[fmt.values.isfinite()].double()
    ours = values[~values.signbit()].sort().values
    assert ours.tolist() == [float(v) for v in GRIDS[name]]
    if fmt.is_signed:
        assert values[values < 0].sort().values.tolist() == [-float(v) for v in reversed(GRIDS[name]) if v]


def test_ue4m3_is_the_positive_half_of_e4m3fn_and_e5m6_fp16_cut_short():
    assert_same_bits(ELEMENTS["ue4m3"].values, ELEMENTS["e4m3fn"].values[:128])
    assert_same_bits(ELEMENTS["e5m6"].values, ELEMENTS["fp16"].values[::16])
    assert_same_bits(ELEMENTS["tf32"].values, (torch.arange(2**19).int() << 13).view(torch.float32))


@pytest.mark.parametrize(("package", "name", "dtype"), PACKAGES, ids=IDS)
@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16, "adversarial"], ids=str)
def test_numbers_get_the_codes_that_other_packages_give(package, name, dtype, source):
    fmt = ELEMENTS[name]
    x = adversarial(name) if source == "adversarial" else sixteen_bit_numbers(source).float()
    assert_encodes_as(fmt, x, dtype)


def is_plain_for_e8m0(x):
    """ml_dtypes makes NaN of what is not positive. It and torch send 1 to 1.5 times 2^-127, which are
    subnormal in fp32, to 2^-126; the nearest power is 2^-127, which is what we give."""
    return (x > 0) & ((x <= 2.0**-127) | (x >= 1.5 * 2.0**-127))


def assert_encodes_as(fmt, x, dtype):
    x = x[x.isfinite()]
    if fmt.name == "e8m0":
        x = x[is_plain_for_e8m0(x)]
    with np.errstate(over="ignore"):  # to infinity, which is the point
        theirs = x.numpy().astype(dtype)
    ours = fmt.encode(x, TIES.get(fmt.name, "even"), overflow="spec")
    is_nan = torch.from_numpy(theirs.astype(np.float32)).isnan()
    assert torch.equal(fmt.decode(ours).isnan(), is_nan)
    assert torch.equal(ours[~is_nan].int(), bits_of(theirs)[~is_nan])


@pytest.fixture(scope="module")
def random_bits():
    """10^7 random bit patterns of fp32: every exponent as often as every other."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-(2**31), 2**31, (10**7,), generator=generator).int().view(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name", "dtype"), PACKAGES, ids=IDS)
def test_ten_million_random_numbers_get_the_codes_that_other_packages_give(package, name, dtype, random_bits):
    assert_encodes_as(ELEMENTS[name], random_bits, dtype)
    # Random exponents mostly overflow: bring the same numbers to where the format has its values.
    largest = min(ELEMENTS[name].largest, 1e30)
    assert_encodes_as(ELEMENTS[name], torch.frexp(random_bits[: 10**6]).mantissa.abs() * largest * 1.1, dtype)


@pytest.mark.parametrize("name", [name for name in TORCH if name != "e8m0"])
def test_numbers_in_reach_get_torchs_codes(name):
    fmt = ELEMENTS[name]
    x = torch.cat((adversarial(name), sixteen_bit_numbers(torch.float16).float()))
    x = x[x.abs() <= fmt.largest]
    theirs = x.to(TORCH[name]).view(torch.uint8 if fmt.bits == 8 else torch.int16)
    assert torch.equal(fmt.encode(x).int(), theirs.int() & 2**fmt.bits - 1)


def test_e8m0_rounds_to_the_nearest_power_halves_up_as_torch_does():
    fmt = ELEMENTS["e8m0"]
    x = torch.cat((adversarial("e8m0").abs(), sixteen_bit_numbers(torch.bfloat16).float().abs()))
    x = torch.cat((x[x.isfinite() & is_plain_for_e8m0(x)], torch.tensor([0.0, 1.49, 1.5, 3.0, 0.75, 3e38])))
    assert torch.equal(fmt.encode(x, overflow="spec"), x.to(torch.float8_e8m0fnu).view(torch.uint8))
    assert fmt.encode(x)[-6:].tolist() == [0, 127, 128, 129, 127, 254]


@pytest.mark.parametrize("name", GFLOAT)
@pytest.mark.parametrize("ties", ["even", "away"])
def test_numbers_round_as_in_gfloat_under_each_rule_for_ties(name, ties):
    # Its loops are slow: the adversarial numbers of the small formats and a sample of the others.
    modes = {"even": "TiesToEven", "away": "TiesToAway"}
    fmt, info = ELEMENTS[name], GFLOAT[name]
    x = adversarial(name)
    x = x[x.abs() <= fmt.largest]
    x = x[:: max(1, len(x) // 500)]
    if name == "e8m0":
        x = x[x >= 2.0**-127]
    mode = gfloat.RoundMode[modes[ties]]
    theirs = [gfloat.round_float(info, float(v), mode) for v in x]
    assert_same_bits(fmt.round(x, ties), torch.tensor(theirs, dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "ties"),
    # Evenness is a place in the list, except in E8M0, which has no mantissa, and HiF8, whose steps widen.
    [(n, t) for n in GRIDS for t in ("even", "away", "zero") if (n, t) != ("hif8", "even") and n != "e8m0"],
)
def test_numbers_round_to_the_nearest_of_the_list(name, ties):
    fmt = ELEMENTS[name]
    x = adversarial(name)
    x = x if fmt.is_signed else x.abs()
    x = x[:: max(1, len(x) // 2000)]
    theirs = torch.tensor([signed(v, GRIDS[name], ties) for v in x], dtype=torch.float32)
    ours = fmt.round(x, ties)
    assert torch.equal(ours, theirs)
    has_minus_zero = bool((fmt.values == 0).sum() == 2)
    assert torch.equal(ours.signbit(), theirs.signbit() & ((theirs != 0) | has_minus_zero))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("e4m3fn", "1.0625 -> 0x38 -> 1; 1.1875 -> 0x3A -> 1.25; 0.3 -> 0x2A -> 0.3125; 17 -> 0x58 -> 16;"
         "19 -> 0x5A -> 20; -0.1 -> 0x9D -> -0.1015625; 0.0009765625 -> 0x00 -> 0; 464 -> 0x7E -> 448"),
        ("e5m2", "1.125 -> 0x3C -> 1; 1.375 -> 0x3E -> 1.5; 0.3 -> 0x35 -> 0.3125; 9 -> 0x48 -> 8;"
         "11 -> 0x4A -> 12; 61439 -> 0x7B -> 57344; 61440 -> 0x7C -> inf"),
        ("e4m3fnuz", "1.0625 -> 0x40 -> 1; 0.3 -> 0x32 -> 0.3125; 240 -> 0x7F -> 240; 247.9 -> 0x7F -> 240;"
         "248 -> 0x80 -> nan; -0.0 -> 0x00 -> 0"),
        ("e2m3", "1.0625 -> 0x08 -> 1; 1.1875 -> 0x0A -> 1.25; 0.0625 -> 0x00 -> 0; 0.1 -> 0x01 -> 0.125;"
         "7.75 -> 0x1F -> 7.5; -3.1 -> 0x34 -> -3; 100 -> 0x1F -> 7.5"),
        ("e3m2", "1.125 -> 0x0C -> 1; 1.375 -> 0x0E -> 1.5; 0.03125 -> 0x00 -> 0; 0.04 -> 0x01 -> 0.0625;"
         "26 -> 0x1E -> 24; 30 -> 0x1F -> 28; 100 -> 0x1F -> 28; -3.1 -> 0x32 -> -3"),
        ("e2m1", "0.25 -> 0x0 -> 0; 0.75 -> 0x2 -> 1; 1.25 -> 0x2 -> 1; 1.75 -> 0x4 -> 2; 2.5 -> 0x4 -> 2;"
         "3.5 -> 0x6 -> 4; 5 -> 0x6 -> 4; 100 -> 0x7 -> 6"),
    ],
    ids=lambda value: value if value in ELEMENTS else "",
)  # fmt: skip
def test_worked_examples(name, line):
    fmt = ELEMENTS[name]
    for number, code, value in re.findall(r"([^\s;]+) -> (\S+) -> ([^\s;]+)", line):
        ours = fmt.encode(torch.tensor(float(number)), overflow="spec")
        assert int(ours) == int(code, 16), number
        torch.testing.assert_close(
            fmt.decode(ours), torch.tensor(float(value)), rtol=0, atol=0, equal_nan=True
        )


def test_ties_away_and_toward_zero_at_the_midpoints_of_fp4():
    middle = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5])
    assert ELEMENTS["e2m1"].round(middle, "away").tolist() == [0.5, 1, 1.5, 2, 3, 4, 6]
    assert ELEMENTS["e2m1"].round(middle, "zero").tolist() == [0, 0.5, 1, 1.5, 2, 3, 4]
    assert ELEMENTS["e2m1"].round(-middle, "away").tolist() == [-0.5, -1, -1.5, -2, -3, -4, -6]


@pytest.mark.parametrize(
    ("name", "past", "spec"),
    [
        *[("e4m3fn", 464 + 2.0**-15, math.nan), ("e5m2", 61440, math.inf), ("e4m3fnuz", 248, math.nan)],
        *[("e5m2fnuz", 61440, math.nan), ("hif8", 40960, math.inf), ("fp16", 65520, math.inf)],
        *[("bf16", 2.0**128 - 2.0**119, math.inf), ("tf32", 2.0**128 - 2.0**116, math.inf)],
        *[("e2m1", 7, 6.0), ("e3m2", 31, 28.0)],
    ],
)
def test_what_lies_past_the_largest_is_a_choice(name, past, spec):
    fmt = ELEMENTS[name]
    ties = TIES.get(name, "even")
    x = torch.tensor([past, -past, math.inf, -math.inf])
    assert fmt.round(x, ties).tolist() == [fmt.largest, -fmt.largest] * 2
    expected = torch.tensor([spec, -spec, spec, -spec])
    assert_same_bits(fmt.round(x, ties, "spec"), expected)
    just_below = torch.tensor(past, dtype=torch.float32).nextafter(torch.tensor(0.0))
    assert fmt.round(just_below, ties, "spec") == fmt.largest


@pytest.mark.parametrize("name", FLOATS)
def test_nan_gets_the_formats_code_or_is_refused(name):
    fmt = ELEMENTS[name]
    x = torch.tensor([1.0, math.nan])
    if fmt.values.isnan().any():
        assert fmt.round(x).isnan().tolist() == [False, True]
    else:
        with pytest.raises(ValueError, match=f"got 1 NaN; {name} has no code"):
            fmt.encode(x)


def test_a_number_without_axes_leaves_the_tables_alone():
    fmt = ELEMENTS["e4m3fn"]
    assert fmt.encode(torch.tensor(math.nan)) == 0x7F
    assert fmt.encode(torch.tensor(0.0)) == 0


def test_what_cannot_be_encoded_or_decoded_is_refused():
    with pytest.raises(ValueError, match="got float64; needs float32"):
        ELEMENTS["e2m1"].encode(torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"down to -2; ue4m3 has no sign"):
        ELEMENTS["ue4m3"].encode(torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match="e2m1 got uint8 codes up to 16"):
        ELEMENTS["e2m1"].decode(torch.tensor([16], dtype=torch.uint8))
    with pytest.raises(ValueError, match="e4m3fn got int64 codes"):
        ELEMENTS["e4m3fn"].decode(torch.tensor([1]))
    with pytest.raises(ValueError, match="choose one of 0 to 15"):
        ELEMENTS["e2m1"].fields(16)


@pytest.mark.parametrize(
    ("name", "code", "fields"),
    [
        ("e4m3fn", 0x2A, (("sign", "0"), ("exponent", "0101"), ("mantissa", "010"))),
        ("e8m0", 0x80, (("exponent", "10000000"),)),
        ("hif8", 0x42, (("sign", "0"), ("dot", "10"), ("exponent", "000"), ("mantissa", "10"))),
        ("hif8", 0x83, (("sign", "1"), ("dot", "0000"), ("exponent", "011"))),
        ("hif8", 0x09, (("sign", "0"), ("dot", "0001"), ("mantissa", "001"))),
        ("int4", 0xE, (("sign", "1"), ("integer", "110"))),
    ],
)
def test_a_code_comes_apart_into_its_fields(name, code, fields):
    assert ELEMENTS[name].fields(code) == fields


@pytest.mark.parametrize("name", [name for name in FLOATS if isinstance(ELEMENTS[name], FloatFormat)])
def test_the_fields_of_a_code_are_all_its_bits(name):
    fmt = ELEMENTS[name]
    for code in (0, 1, 2**fmt.bits - 1, 2**fmt.bits // 3):
        assert "".join(bits for _, bits in fmt.fields(code)) == format(code, f"0{fmt.bits}b")


@QUICK
@given(seed=st.integers(0, 2**20), exponent=st.integers(-30, 30))
@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("ties", ["even", "away", "zero"])
def test_rounding_is_idempotent_monotonic_odd_and_blind_to_the_dtype(name, ties, seed, exponent):
    fmt = ELEMENTS[name]
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed)).bfloat16() * 2.0**exponent
    once = fmt.round(x, ties)
    assert_same_bits(fmt.round(once, ties), once)
    ordered = fmt.round(x.float().sort().values, ties)
    assert (ordered.diff() >= 0).all()
    assert torch.equal(fmt.round(-x, ties), -once)
    assert torch.equal(fmt.round(x.float(), ties), once)
    codes = fmt.encode(once)
    assert torch.equal(fmt.encode(fmt.decode(codes)), codes)


@QUICK
@given(seed=st.integers(0, 2**20), shift=st.integers(-3, 3))
@pytest.mark.parametrize("name", ["e4m3fn", "e5m2", "bf16", "e5m2fnuz"])
def test_a_power_of_two_goes_through_rounding_away_from_the_ends(name, seed, shift):
    x = torch.rand(64, generator=torch.Generator().manual_seed(seed)) + 0.5
    fmt = ELEMENTS[name]
    assert torch.equal(fmt.round(x * 2.0**shift), fmt.round(x) * 2.0**shift)


def test_a_view_with_gaps_encodes_as_its_copy(rand):
    x = rand(6, 10)
    for name in SIGNED:
        fmt = ELEMENTS[name]
        assert torch.equal(fmt.encode(x.T[::2]), fmt.encode(x.T[::2].contiguous()))


def test_the_oracle_finds_the_nearest_by_its_definition():
    grid = GRIDS["e2m1"]
    for x in (0, 0.2, 0.25, 0.3, 2.4, 2.5, 4.9, 5, 5.1, 9):
        distance = min(abs(v - min(x, 6)) for v in grid)
        assert abs(nearest(x, grid) - min(x, 6)) == distance
