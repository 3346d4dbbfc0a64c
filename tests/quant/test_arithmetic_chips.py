"""The table of chips' arithmetics, and how their formats are taken apart for the unit."""

import typing

import pytest
import torch

import workbench as wb
from workbench.quant import FORMATS, quantize
from workbench.quant.arithmetic.chips import ARITHMETICS, Kind
from workbench.quant.arithmetic.matmul import OUTPUTS, Arithmetic, matmul
from workbench.quant.arithmetic.model import arithmetic_of
from workbench.quant.arithmetic.operands import operand
from workbench.quant.arithmetic.units import FloatUnit

ROLES = ("experts", "linear", "plain")
BY_NUMBER = [name for name, fmt in FORMATS.items() if name not in ("kv_v4", "mlu_int31_pos")]


@pytest.mark.parametrize("name", BY_NUMBER)
def test_an_operand_stands_for_what_the_format_stores(name, rand):
    x = rand(128, 256)
    expected = quantize(x, name).dequantize()
    # Of NVFP4's value and two scales, and of MLU's value, power and scale, two are multiplied first.
    tolerance = 2.0**-22 if name.startswith(("nvfp4", "mlu")) else 0
    torch.testing.assert_close(operand(x, name).numbers(), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    "name", ["fp8_e4m3_1x128", "fp8_e4m3_128x128_ue8m0", "mxfp4_v4", "nvfp4", "hif4", "int8_token"]
)
def test_a_last_block_may_be_short(name, rand):
    x = rand(9, 77)
    padded = torch.zeros(128, 128)
    padded[:9, :77] = x
    expected = quantize(padded, name).dequantize()[:9, :77]
    torch.testing.assert_close(operand(x, name).numbers(), expected, rtol=2.0**-22, atol=0)


def test_exponents_are_those_of_the_fields():
    x = torch.tensor([[1.5, 2.0**-6, 2.0**-8, -448.0, 0.0]])
    assert operand(x, "e4m3fn").exponents.tolist()[0][:4] == [0, -6, -6, 8]
    assert operand(x, "e4m3fn").exponents[0, 4] < -1000
    half = torch.tensor([[0.5, 6.0]])  # 0.5 is E2M1's subnormal
    assert operand(half, "mxfp4_v4").exponents.tolist() == [[0, 2]]
    assert operand(half, "mxfp4_v4", enters_as="e4m3fn").exponents.tolist() == [[-1, 2]]
    assert operand(torch.tensor([[2.0**-20]]), "fp16").exponents.tolist() == [[-14]]


def test_only_powers_of_two_scale_inside_a_unit(rand):
    with pytest.raises(ValueError, match="inside the unit"):
        matmul(
            rand(2, 128), rand(3, 128), Arithmetic(FloatUnit(32), "fp8_e4m3_1x128", "bf16", scaling="unit")
        )


def test_not_a_number_is_refused(rand):
    x = rand(2, 64)
    x[1, 3] = torch.nan
    with pytest.raises(ValueError, match="1 NaN"):
        matmul(x, rand(3, 64), ARITHMETICS["h800"].linear)
    with pytest.raises(ValueError, match="1 numbers that are not finite in bf16"):
        matmul(rand(3, 64), x, ARITHMETICS["h800"].plain)


@pytest.mark.parametrize("name", ARITHMETICS)
def test_every_row_says_where_it_comes_from(name):
    chip = ARITHMETICS[name]
    assert chip.name == name and chip.vendor and chip.source and chip.note
    assert {chip.kind, *chip.unit_kinds.values()} <= set(typing.get_args(Kind))
    assert all(chip.unit_sources[role] for role in ROLES)
    assert all(chip.of(role).output in OUTPUTS for role in ROLES)


def test_alike_chips_are_alike():
    assert ARITHMETICS["h200"].linear == ARITHMETICS["h800"].linear
    assert ARITHMETICS["ascend-910c"].experts == ARITHMETICS["ascend-910b"].experts
    assert ARITHMETICS["mi300x"].linear != ARITHMETICS["mi355x"].linear


@pytest.mark.parametrize("name", ARITHMETICS)
@pytest.mark.parametrize("role", ROLES)
def test_a_chips_product_is_that_of_its_rounded_factors(name, role, rand):
    """But for the unit and the result's rounding: what the formats lose is not counted here."""
    arithmetic = ARITHMETICS[name].of(role)
    a, b = rand(20, 300), rand(50, 300) / 20
    x, y = arithmetic.operand_a(a).numbers().double(), arithmetic.operand_b(b).numbers().double()
    found = matmul(a, b, arithmetic)
    assert found.dtype == OUTPUTS[arithmetic.output]
    # Hopper's 13 places, once for each of at most four groups between promotions; BF16's 8 on the result.
    error = (found.double() - x @ y.T).abs()
    assert (error <= 5 * 2.0**-13 * (x.abs() @ y.abs().T) + 2.0**-8 * (x @ y.T).abs()).all()


@torch.no_grad()
@pytest.mark.parametrize("name", ARITHMETICS)
def test_v4_runs_in_the_arithmetic_of(name):
    model = wb.model.Transformer(wb.load_config("tiny"), generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(1))
    plain = model(ids).log_softmax(-1)
    with arithmetic_of(model, name) as chip:
        assert chip is ARITHMETICS[name]
        found = model(ids).log_softmax(-1)
    divergence = (plain.exp() * (plain - found)).sum(-1).mean()
    assert 0 < divergence < 0.05
    assert torch.equal(model(ids).log_softmax(-1), plain)


def test_fewer_bits_are_further_off(rand):
    """On Gaussian factors: BF16, INT8 by token, FP8, FP4 experts, in this order."""
    a, b = rand(64, 512), rand(64, 512)

    def error(name, role):
        found = matmul(a, b, ARITHMETICS[name].of(role)).float()
        return float((found - a @ b.T).norm() / (a @ b.T).norm())

    errors = [
        error("ascend-910c-bf16", "linear"),
        error("ascend-910c", "linear"),
        error("b200", "linear"),
        error("b200", "experts"),
    ]
    assert errors == sorted(errors) and errors[0] < errors[-1] / 10
