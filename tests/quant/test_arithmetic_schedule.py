"""A product by a schedule: right against FP64 and an oracle, its bits from the order of k alone."""

import dataclasses

import pytest
import torch

from tests.oracles.matrix_units import sequential_dot
from workbench.chips import load_chip
from workbench.chips.kernel_rows import product
from workbench.chips.kernels.schedule import Schedule, schedule
from workbench.quant.arithmetic.chips import chip_arithmetic
from workbench.quant.arithmetic.matmul import Arithmetic
from workbench.quant.arithmetic.schedule import execute, execute_attention
from workbench.quant.arithmetic.units import FloatUnit

FP32 = Arithmetic(FloatUnit(16), "fp32", "fp32")


def of(m, n, k, rows=4, columns=8, parts=1, cores=3) -> Schedule:
    return Schedule(1, m, n, k, rows, columns, parts, cores, 1, 0.0, 0.0)


@pytest.mark.parametrize(
    "name", ["v4-reference", "h800", "b200", "mi300x", "mi355x", "ascend-910c", "ascend-950", "mlu590"]
)
@pytest.mark.parametrize("role", ["linear", "plain"])
def test_it_is_the_product_in_every_chip_s_arithmetic(name, role, rand):
    a, b = rand(5, 512), rand(40, 512)
    how = chip_arithmetic(name).of(role)
    for parts in (1, 4):
        got = execute(a, b, how, of(5, 40, 512, parts=parts)).product.double()
        # The rounded operands' product, in FP64.
        exact = how.operand_a(a).numbers().double() @ how.operand_b(b).numbers().double().T
        assert float((got - exact).norm() / exact.norm()) < 5e-3
        assert got.shape == (5, 40) and got.isfinite().all()


def test_parts_are_summed_apart_and_added_from_first_to_last(rand):
    a, b = rand(3, 100), rand(5, 100)
    got = execute(a, b, FP32, of(3, 5, 100, rows=2, columns=3, parts=3)).product
    # 100 products are 7 groups of 16: three parts hold 3, 3 and 1 of them.
    for i in range(3):
        for j in range(5):
            total = torch.tensor(0.0)
            for cut in (slice(0, 48), slice(48, 96), slice(96, 100)):
                part = float(sequential_dot(a[i, cut].tolist(), b[j, cut].tolist(), 16, 23))
                total = total + torch.tensor(part, dtype=torch.float32)
            assert got[i, j] == total


def test_tiles_cores_and_neighbours_move_no_bit_and_parts_do(rand):
    a, b = rand(7, 640), rand(33, 640)
    whole = execute(a, b, FP32, of(7, 33, 640)).product
    for changes in (dict(rows=1, columns=33), dict(rows=7, columns=5), dict(cores=11)):
        assert torch.equal(execute(a, b, FP32, dataclasses.replace(of(7, 33, 640), **changes)).product, whole)
    assert torch.equal(execute(a[2:3], b, FP32, of(1, 33, 640)).product, whole[2:3])
    assert not torch.equal(execute(a, b, FP32, of(7, 33, 640, parts=4)).product, whole)
    draws = [
        execute(
            a, b, FP32, of(7, 33, 640, parts=8), combine="random", generator=torch.Generator().manual_seed(i)
        )
        for i in range(2)
    ]
    assert not torch.equal(draws[0].product, draws[1].product)


def test_integers_do_not_notice_parts(rand):
    a, b = rand(4, 512), rand(9, 512)
    int8 = dataclasses.replace(chip_arithmetic("ascend-910c").linear, output="fp32")
    assert (
        len({execute(a, b, int8, of(4, 9, 512, parts=p)).product.numpy().tobytes() for p in (1, 2, 8)}) == 1
    )


def test_loads_and_visits_of_a_hand_worked_schedule(rand):
    # 2 × 2 tiles of 2 × 3 and 1 × 3 rows; tile i goes to core i mod 2; each loads its rows of a and of b.
    done = execute(rand(3, 32), rand(6, 32), FP32, of(3, 6, 32, rows=2, columns=3, cores=2))
    assert [(v.core, v.wave) for v in done.visits] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert done.loads == ((2 + 3 + 1 + 3) * 32,) * 2


def test_more_parts_than_groups_leave_the_rest_out(rand):
    a, b = rand(2, 20), rand(3, 20)
    done = execute(a, b, FP32, of(2, 3, 20, parts=8))
    assert len(done.visits) == 2 and done.product.isfinite().all()


def test_the_simulator_s_own_schedule_runs(rand):
    s = schedule(product("gemm", 1.0, 6.0, 48.0, 1024.0, "bf16", "bf16"), load_chip("h800"))
    done = execute(rand(6, 1024), rand(48, 1024), chip_arithmetic("h800").plain, s)
    assert len(done.visits) == s.tiles and sum(load > 0 for load in done.loads) == min(s.tiles, s.cores)


def test_sizes_of_another_schedule_are_refused(rand):
    with pytest.raises(ValueError, match=r"execute: got a \(2, 20\) and b \(3, 20\); the schedule is of 1"):
        execute(rand(2, 20), rand(3, 20), FP32, of(2, 4, 20))


def attention(m, t, c, rows=4, parts=1, cores=3) -> Schedule:
    return Schedule(1, m, c, t, rows, c, parts, cores, 1, 0.0, 0.0)


@pytest.mark.parametrize("name", ["v4-reference", "h800", "mi355x", "ascend-910c-bf16", "ascend-950"])
@pytest.mark.parametrize("parts", [1, 3])
def test_it_is_attention_in_every_chip_s_arithmetic(name, parts, rand):
    q, kv = rand(5, 32), rand(200, 32)
    how = chip_arithmetic(name).plain
    got = execute_attention(q, kv, how, attention(5, 200, 32, parts=parts)).product.double()
    q, kv = (how.operand_a(x).numbers().double() for x in (q, kv))
    # Every weight by itself, in FP64.
    for row in range(5):
        weights = torch.tensor(
            [float((q[row] * key).sum()) / 32**0.5 for key in kv], dtype=torch.float64
        ).exp()
        exact = sum(w * key for w, key in zip(weights, kv, strict=True)) / weights.sum()
        assert float((got[row] - exact).norm() / exact.norm()) < 1e-2


def test_attention_s_blocks_of_rows_move_no_bit_and_parts_of_the_keys_do(rand):
    q, kv = rand(6, 16), rand(300, 16)
    whole = execute_attention(q, kv, FP32, attention(6, 300, 16)).product
    for changes in (dict(rows=1), dict(rows=6), dict(cores=7)):
        again = execute_attention(q, kv, FP32, dataclasses.replace(attention(6, 300, 16), **changes)).product
        assert torch.equal(again, whole)
    alone = execute_attention(q[2:3], kv, FP32, attention(1, 300, 16)).product
    assert torch.equal(alone, whole[2:3])
    parted = execute_attention(q, kv, FP32, attention(6, 300, 16, parts=3)).product
    assert not torch.equal(parted, whole)
    torch.testing.assert_close(parted, whole, rtol=1e-5, atol=1e-6)


def test_loads_of_hand_worked_attention(rand):
    # Blocks of 4 and 1 rows against 130 keys in parts of 128 and 2: four visits, in turns on 2 cores.
    done = execute_attention(rand(5, 8), rand(130, 8), FP32, attention(5, 130, 8, parts=2, cores=2))
    assert [(v.core, v.part) for v in done.visits] == [(0, 0), (1, 1), (0, 0), (1, 1)]
    assert done.loads == ((4 + 128 + 1 + 128) * 8, (4 + 2 + 1 + 2) * 8)


def test_attention_of_other_sizes_is_refused(rand):
    with pytest.raises(ValueError, match=r"execute_attention: got q \(2, 8\) and kv \(9, 8\); the schedule"):
        execute_attention(rand(2, 8), rand(9, 8), FP32, attention(3, 9, 8))
