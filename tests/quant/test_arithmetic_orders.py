"""Sums in a stated order: right against FP64, the same bits where the order is the same, others where not.

Claims I8 to I11 of the report rest on these.
"""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.quant.arithmetic.matmul import Arithmetic, matmul
from workbench.quant.arithmetic.orders import FillUnits, Order, buffered_sum, ordered_sum, pairwise_sum
from workbench.quant.arithmetic.units import FloatUnit


def test_sums_add_in_the_stated_order():
    """Each addition rounded by hand: the exact sum of two floats, then back to FP32."""

    def add(a, b):
        return float(torch.tensor(float(Fraction(a) + Fraction(b)), dtype=torch.float64).float())

    terms = [2.0**25, 1.0, 1.0, -(2.0**25), 3.0]
    tensor = torch.tensor(terms)
    for order in itertools.permutations(range(5)):
        total = 0.0
        for number in order:
            total = add(total, terms[number])
        assert float(ordered_sum(tensor, order)) == total
    assert float(pairwise_sum(tensor, 0)) == add(
        add(add(terms[0], terms[1]), add(terms[2], terms[3])), terms[4]
    )


def test_buffers_make_the_sum_independent_of_who_is_first(rand):
    terms = rand(37, 24)
    first = buffered_sum(terms, 5, [0, 1, 2, 3, 4])
    assert all(
        torch.equal(buffered_sum(terms, 5, order), first) for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3])
    )
    assert not torch.equal(ordered_sum(terms, range(37)), ordered_sum(terms, range(36, -1, -1)))
    torch.testing.assert_close(first, terms.sum(0))


FP32 = Arithmetic(FloatUnit(16), "bf16", "bf16")


def with_order(**order):
    return Arithmetic(FloatUnit(16), "bf16", "bf16", order=Order(**order))


@pytest.mark.parametrize(
    "arithmetic",
    [
        FP32,
        Arithmetic(FloatUnit(32, 13, 13, "zero"), "e4m3fn", "e4m3fn", promote_every=128),
        with_order(parts=5),
        with_order(parts=None, combine="tree"),
    ],
    ids=["sequential", "Hopper", "split-k, always 5", "tree"],
)
def test_one_order_gives_one_result_at_every_batch_size(arithmetic, rand):
    a, b = rand(70, 700), rand(33, 700)
    whole = matmul(a, b, arithmetic)
    for rows in (1, 2, 13, 64, 69):
        assert torch.equal(matmul(a[:rows], b, arithmetic), whole[:rows])
    assert torch.equal(matmul(a.flip(0), b, arithmetic), whole.flip(0))


def test_split_k_by_the_size_of_the_batch_changes_bits_with_the_batch(rand):
    a, b = rand(256, 2048), rand(256, 2048)
    by_batch = with_order(parts=FillUnits(units=16))
    few, many = matmul(a[:64], b, by_batch), matmul(a, b, by_batch)
    assert not torch.equal(few, many[:64])
    torch.testing.assert_close(few, many[:64], rtol=1e-4, atol=1e-3)
    # 16 units have 2 tiles of 64 rows and then 8: 8 parts of k and then 2.
    assert torch.equal(few, matmul(a[:64], b, with_order(parts=8)))
    assert torch.equal(many, matmul(a, b, with_order(parts=2)))


def test_units_are_filled_as_far_as_tiles_go():
    fill = FillUnits(units=132, rows=64, columns=128)
    assert [fill(m, 256) for m in (1, 64, 65, 4096)] == [66, 66, 33, 1]


def test_parts_cover_k_in_whole_granules():
    assert Order(parts=3).cut(10, 2, 1, 1) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert Order(parts=9).cut(10, 4, 1, 1) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert Order(parts=None).cut(5, 2, 1, 1) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert Order().cut(10, 4, 1, 1) == [slice(0, 10)]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_parts_are_summed_apart_and_added_from_first_to_last(parts, rand):
    a, b = rand(5, 100), rand(4, 100)
    found = matmul(a, b, with_order(parts=parts))
    length = -(-7 // parts) * 16
    expected = torch.zeros(5, 4)
    for begin in range(0, 100, length):
        expected = expected + matmul(a[:, begin : begin + length], b[:, begin : begin + length], FP32)
    assert torch.equal(found, expected)


def test_a_tree_adds_neighbours_first(rand):
    a, b = rand(5, 80), rand(4, 80)
    one, two, three, four, five = (matmul(a[:, i : i + 16], b[:, i : i + 16], FP32) for i in range(0, 80, 16))
    found = matmul(a, b, with_order(parts=None, combine="tree"))
    assert torch.equal(found, ((one + two) + (three + four)) + five)
    assert not torch.equal(found, matmul(a, b, with_order(parts=None)))


@given(seed=st.integers(0, 2**20), parts=st.integers(2, 12))
def test_atomic_additions_change_bits_within_the_bound_of_any_order(seed, parts):
    draws = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(6, 400, generator=draws).bfloat16().float() for _ in range(2))
    atomic = with_order(parts=parts, combine="random")
    exact, size = a.double() @ b.double().T, a.double().abs() @ b.double().abs().T
    for _ in range(3):
        found = matmul(a, b, atomic, generator=draws)
        # 25 groups and at most 12 parts: so many roundings, each by half a unit of 2^-23 of a partial sum.
        assert ((found.double() - exact).abs() <= (25 + parts) * 2.0**-24 * size).all()


def test_atomic_additions_vary_and_buffers_do_not(rand):
    a, b = rand(24, 4096), rand(24, 4096)  # the 24-wide product of the residual mixing
    draws = torch.Generator().manual_seed(0)
    atomic = [matmul(a, b, with_order(parts=16, combine="random"), generator=draws) for _ in range(4)]
    assert any(not torch.equal(atomic[0], other) for other in atomic[1:])
    buffered = [matmul(a, b, with_order(parts=16)) for _ in range(3)]
    assert all(torch.equal(buffered[0], other) for other in buffered[1:])


def test_a_generator_draws_the_same_order_again(rand):
    a, b = rand(8, 2048), rand(8, 2048)
    atomic = with_order(parts=16, combine="random")
    first, second = (matmul(a, b, atomic, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_impossible_orders_are_refused(rand):
    with pytest.raises(ValueError, match="no generator"):
        matmul(rand(2, 64), rand(2, 64), with_order(parts=4, combine="random"))
    with pytest.raises(ValueError, match="parts=0"):
        matmul(rand(2, 64), rand(2, 64), with_order(parts=0))
