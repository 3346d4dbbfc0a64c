"""Products with scales against loops over numbers: V4's kernels, integers with scales, scales in the unit."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import matrix_units as oracle
from workbench.quant.arithmetic.matmul import Arithmetic, matmul
from workbench.quant.arithmetic.operands import Operand, operand
from workbench.quant.arithmetic.units import FloatUnit, IntegerUnit

HOPPER = FloatUnit(group=32, fraction_bits=13, kept_bits=13, rounding="zero")
f32 = np.float32


def fp8(x):
    return x.numpy().astype(ml_dtypes.float8_e4m3fn).astype(f32)


def scaled(values, scales, block):
    """An operand from numbers and the scales of its blocks, put together by hand."""
    return Operand(values, operand(values, "e4m3fn").exponents, scales, block)


def scales(*shape, seed, powers):
    generator = torch.Generator().manual_seed(seed)
    if powers:
        return torch.exp2(torch.randint(-9, 4, shape, generator=generator).float())
    return torch.rand(shape, generator=generator) / 100


@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize("k", [128, 300])
def test_fp8_times_fp8_is_v4s_kernel(k, powers, rand):
    """for each 128 of k: total += sum(fp8 · fp8) * (scale_a * scale_b), all in FP32; the result in BF16."""
    a, b = torch.from_numpy(fp8(rand(3, k))), torch.from_numpy(fp8(rand(5, k)))
    chunks = -(-k // 128)
    sa, sb = scales(3, chunks, seed=1, powers=powers), scales(5, chunks, seed=2, powers=powers)
    kernel = Arithmetic(FloatUnit(32), promote_every=128)
    found = matmul(scaled(a, sa, 128), scaled(b, sb, 128), kernel)
    kernel = dataclasses.replace(kernel, output="bf16")
    in_bf16 = matmul(scaled(a, sa, 128), scaled(b, sb, 128), kernel)
    assert (found.dtype, in_bf16.dtype) == (torch.float32, torch.bfloat16)
    for i in range(3):
        for j in range(5):
            total = f32(0)
            for c in range(chunks):
                part = slice(128 * c, 128 * (c + 1))
                product = f32(oracle.sequential_dot(a[i, part].tolist(), b[j, part].tolist(), 32, 23))
                total = f32(total + f32(product * f32(f32(sa[i, c]) * f32(sb[j, c]))))
            assert float(found[i, j]) == total
            assert float(in_bf16[i, j]) == float(ml_dtypes.bfloat16(total))


@pytest.mark.parametrize("unit", [FloatUnit(32), HOPPER], ids=["FP32", "Hopper"])
def test_fp8_times_fp4_is_v4s_kernel(unit, rand):
    """for each 32 of k: total += (sum(fp8 · fp4) * scale_a[k / 4]) * scale_b[k], activations first."""
    k = 192
    a = torch.from_numpy(fp8(rand(3, k)))
    b = torch.from_numpy((rand(4, k) * 2).numpy().astype(ml_dtypes.float4_e2m1fn).astype(f32))
    sa, sb = scales(3, 2, seed=1, powers=False), scales(4, 6, seed=2, powers=False)
    kernel = Arithmetic(unit, promote_every=32, scale_order="a first")
    found = matmul(scaled(a, sa, 128), scaled(b, sb, 32), kernel)
    for i in range(3):
        for j in range(4):
            total = f32(0)
            for c in range(6):
                x, y = (t[32 * c : 32 * (c + 1)].tolist() for t in (a[i], b[j]))
                if unit is HOPPER:
                    product = oracle.aligned_dot(x, y, (-6, -6), 32, 13, 13, "zero")
                else:
                    product = oracle.sequential_dot(x, y, 32, 23)
                total = f32(total + f32(f32(f32(product) * f32(sa[i, c // 4])) * f32(sb[j, c])))
            assert float(found[i, j]) == total


@pytest.mark.parametrize(("order", "pick"), [("a first", (0, 1)), ("b first", (1, 0))])
def test_integers_are_scaled_once_in_the_stated_order(order, pick):
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randint(-127, 128, (n, 500), generator=generator).float() for n in (6, 9))
    sa, sb = torch.rand(6, 1, generator=generator), torch.rand(9, 1, generator=generator)
    w8a8 = Arithmetic(IntegerUnit(), scaling="end", scale_order=order)
    found = matmul(scaled(a, sa, 500), scaled(b, sb, 500), w8a8)
    whole = (a.long() @ b.long().T).numpy()
    for i in range(6):
        for j in range(9):
            factors = f32(sa[i, 0]), f32(sb[j, 0])
            assert float(found[i, j]) == f32(f32(f32(whole[i, j]) * factors[pick[0]]) * factors[pick[1]])


def test_scales_inside_the_unit_are_scaled_numbers_and_shifted_exponents(rand):
    """The exponents of FP8 subnormals stay those of their field, before and after the shift."""
    k = 96
    a, b = torch.from_numpy(fp8(rand(3, k) * 2.0**-5)), torch.from_numpy(fp8(rand(4, k) * 2.0**-5))
    assert ((a != 0) & (a.abs() < 2.0**-6)).any()  # subnormals
    sa, sb = scales(3, 3, seed=4, powers=True), scales(4, 3, seed=5, powers=True)
    found = matmul(scaled(a, sa, 32), scaled(b, sb, 32), Arithmetic(HOPPER, scaling="unit"))
    for i in range(3):
        for j in range(4):
            total = 0
            for c in range(3):
                x, y = (t[32 * c : 32 * (c + 1)].tolist() for t in (a[i], b[j]))
                # One group: dividing all by the scales changes nothing but the exponent of the sum so far.
                scale = float(sa[i, c] * sb[j, c])
                part = oracle.aligned_dot(x, y, (-6, -6), 32, 13, 13, "zero", begin=total / scale)
                total = float(part) * scale
            assert float(found[i, j]) == total


def test_a_sum_over_several_scales_is_refused(rand):
    a = scaled(rand(2, 64), torch.ones(2, 2), 32)
    with pytest.raises(ValueError, match="scales for each 32"):
        matmul(a, a, Arithmetic(FloatUnit(32), promote_every=64))
    with pytest.raises(ValueError, match="rows of 64 and b with rows of 63"):
        matmul(rand(2, 64), rand(2, 63), Arithmetic(FloatUnit(32)))


def test_leading_axes_and_independent_products(rand):
    a, b = rand(2, 3, 40), rand(2, 5, 40)
    plain = Arithmetic(FloatUnit(8), "bf16", "bf16")
    both = matmul(a, b, plain)
    assert both.shape == (2, 3, 5)
    assert torch.equal(both[1], matmul(a[1], b[1], plain))
    assert torch.equal(matmul(a, b[0], plain)[1], matmul(a[1], b[0], plain))
    assert torch.equal(matmul(a[1, 2], b[0], plain), matmul(a, b[0], plain)[1, 2])
    assert matmul(a[:, :0], b[0], plain).shape == (2, 0, 5)


@given(seed=st.integers(0, 2**20), k=st.integers(1, 300), every=st.sampled_from([None, 32, 128]))
def test_powers_of_two_pass_through(seed, k, every):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(4, k, generator=generator) for _ in range(2))
    arithmetic = Arithmetic(HOPPER, "bf16", "bf16", promote_every=every)
    assert torch.equal(matmul(a * 16, b / 4, arithmetic), 4 * matmul(a, b, arithmetic))


def test_bf16_sums_are_a_bad_baseline(rand):
    """A BF16 sum stops growing once a product is below half of its last place."""
    ones = torch.ones(1, 4096)
    in_bf16 = Arithmetic(FloatUnit(1, None, 7), "bf16", "bf16")
    assert float(matmul(ones, ones, in_bf16)) == 256
    assert float(matmul(ones, ones, Arithmetic(FloatUnit(1), "bf16", "bf16"))) == 4096
