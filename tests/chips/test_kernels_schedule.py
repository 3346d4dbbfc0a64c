"""Schedules: every number of the result is visited once a part, and their times are the simulator's."""

import itertools

import numpy as np
import pytest

from workbench.chips import kernel_time, load_chip
from workbench.chips.kernel_rows import product
from workbench.chips.kernels.schedule import Schedule, resources, schedule, tiling_times, tried
from workbench.config import load_config
from workbench.widgets.chip_rows import layer, tokens_workload

CHIPS = ("ascend-910c", "ascend-950dt", "mlu590", "h20", "h800", "b200", "mi355x")
SHAPES = ((1, 1536, 7168), (100, 512, 2048), (1000, 7168, 2048))


def gemm(m, n, k, fmt="bf16"):
    return product("gemm", 1.0, float(m), float(n), float(k), fmt, fmt)


@pytest.mark.parametrize("key", CHIPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_chosen_schedule_takes_the_simulated_time(key, shape):
    chip = load_chip(key)
    expected = float(kernel_time(gemm(*shape), chip).expected_s)
    assert schedule(gemm(*shape), chip).expected_s == pytest.approx(expected, rel=1e-6)
    assert min(s.core_s for s in tried(gemm(*shape), chip)) == schedule(gemm(*shape), chip).core_s


@pytest.mark.parametrize("shape", SHAPES)
def test_every_place_of_the_result_is_visited_once_for_each_part(shape):
    chip = load_chip("ascend-910c")
    for s in tried(gemm(*shape), chip)[::3]:
        seen = np.zeros((s.parts, s.m, s.n), dtype=int)
        at = [[] for _ in range(s.cores)]
        for visit in s.visits():
            seen[visit.part, visit.rows, visit.columns] += 1
            at[visit.core].append(visit.wave)
        assert (seen == 1).all()
        # Each core takes one tile a wave, and the busiest one takes one in every wave.
        assert all(waves == list(range(len(waves))) for waves in at)
        assert max(map(len, at)) == s.waves
        assert s.full == pytest.approx(sum(map(len, at)) / (s.waves * s.cores))


def test_waves_of_a_hand_worked_product():
    # 300 × 500 in tiles of 128 × 128: 3 × 4 tiles, k in 2 parts: 24 tiles on 10 cores.
    s = Schedule(1, 300, 500, 64, 128, 128, 2, 10, 1, 0.0, 0.0)
    assert (s.tiles, s.waves, s.full) == (24, 3, 0.8)


@pytest.mark.parametrize("key", CHIPS)
def test_no_resource_alone_takes_longer_than_the_whole(key):
    for op in layer(load_config("deepseek-v4-pro"), tokens_workload(16)):
        alone = resources(op, load_chip(key))
        each = (alone.launch_s, alone.memory_s, alone.roof_s, *alone.stages.values())
        assert max(each) <= alone.expected_s * (1 + 1e-9)
        assert alone.expected_s <= sum(each) * 1.5 + alone.launch_s + 1e-6 or alone.limit == "step"


def test_the_roof_is_published_peak_or_bandwidth():
    op, chip = gemm(4096, 4096, 4096, "fp8"), load_chip("h800")
    alone = resources(op, chip)
    assert alone.peak_s == pytest.approx(2 * 4096**3 / chip.peak_flop_per_s["fp8"])
    assert alone.nominal_memory_s == pytest.approx(op.moved_bytes / chip.memory_byte_per_s)
    assert alone.roof_s == max(alone.peak_s, alone.nominal_memory_s)


def test_a_sweep_under_one_tiling_agrees_with_single_ones():
    chip, m = load_chip("b200"), np.array([8.0, 130.0, 777.0])
    sweep = tiling_times(
        gemm(8, 1536, 7168).replace(
            m=m, flop=2 * m * 1536 * 7168, read_bytes=2 * m * 7168, write_bytes=2 * m * 1536
        ),
        chip,
    )
    for i, size in enumerate(m):
        for s in tried(gemm(size, 1536, 7168), chip):
            assert sweep[s.rows, s.columns, s.parts][i] == pytest.approx(s.expected_s, rel=1e-6)
    assert len(sweep) == len(set(itertools.chain(sweep)))


@pytest.mark.parametrize("key", CHIPS)
def test_attention_is_scheduled_as_it_is_timed(key):
    chip = load_chip(key)
    work = layer(load_config("deepseek-v4-pro"), tokens_workload(4))
    core = next(op for op in work if op.name == "core")
    s = schedule(core, chip)
    assert s.expected_s == pytest.approx(float(kernel_time(core, chip).expected_s), rel=1e-6)
    # 128 heads of each token share its 1,024 chosen and 128 recent keys of 512 channels.
    assert (s.groups, s.m, s.n, s.k) == (4, 128, 512, 1152) and s.columns == 512
    assert sum(1 for _ in s.visits()) == s.tiles == 4 * -(-128 // s.rows) * s.parts


def test_what_cannot_be_scheduled_says_so():
    chip = load_chip("h800")
    work = layer(load_config("deepseek-v4-pro"), tokens_workload(4))
    for name in ("q norm, rotation", "index scores"):
        with pytest.raises(ValueError, match=f"tried: '{name}' is of kind .*; only products and attention"):
            tried(next(op for op in work if op.name == name), chip)
    many = gemm(8, 512, 512).replace(m=np.array([1.0, 2.0]))
    for function in (tried, resources):
        with pytest.raises(ValueError, match="sizes that are arrays"):
            function(many, chip)
