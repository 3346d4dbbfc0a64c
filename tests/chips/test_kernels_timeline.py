"""Timelines: work is conserved, nothing begins before what it waits for, and the end is the expected time."""

import itertools

import pytest

from workbench.chips import Workload, load_chip, operations
from workbench.chips.kernel_rows import product
from workbench.chips.kernels import kernel_time, timeline
from workbench.chips.kernels.timeline import BUFFERS
from workbench.config import load_config

CHIPS = ["h20", "b200", "mi355x", "ascend-910c", "ascend-950dt", "mlu590"]
GEMMS = [(4096, 4096, 4096), (64, 7168, 7168), (1000, 1536, 7168), (8, 512, 256)]


def drawn(chip, name):
    work = operations(load_config("deepseek-v4-pro"), Workload(phase="prefill", context_tokens=2048))
    return next(op for op in work if op.name == name), load_chip(chip)


def gemm(chip, shape):
    return product("gemm", 1.0, *(float(s) for s in shape), "bf16", "bf16"), load_chip(chip)


CASES = [(gemm, c, s) for c in CHIPS for s in GEMMS] + [
    (drawn, c, name) for c in CHIPS for name in ("core", "experts down", "attn_hc expand", "top-k")
]


@pytest.mark.parametrize(("make", "chip", "what"), CASES)
def test_with_all_tiles_it_ends_at_the_expected_time(make, chip, what):
    operation, chip = make(chip, what)
    line = timeline(operation, chip, tiles=10**6)
    assert line.tiles == line.tiles_shown
    assert max(s.end_s for s in line.spans) == pytest.approx(line.expected_s, rel=0.13)
    assert line.expected_s == pytest.approx(float(kernel_time(operation, chip).expected_s))


@pytest.mark.parametrize(("make", "chip", "what"), CASES)
def test_every_engine_does_one_thing_at_a_time_and_waits_for_its_input(make, chip, what):
    spans = [s for s in timeline(*make(chip, what), tiles=5).spans if s.stage != "launch"]
    stages = sorted({s.stage for s in spans}, key=[s.stage for s in spans].index)
    by_stage = {stage: [s for s in spans if s.stage == stage] for stage in stages}
    for rows in by_stage.values():
        for before, after in itertools.pairwise(rows):
            assert after.start_s >= before.end_s
    chain = [stage for stage in stages if stage != "store"]
    for producer, consumer in itertools.pairwise(chain):
        for i, (made, used) in enumerate(zip(by_stage[producer], by_stage[consumer], strict=True)):
            assert used.start_s >= made.end_s
            if i >= BUFFERS:  # its buffer was given back
                assert made.start_s >= by_stage[consumer][i - BUFFERS].end_s
    for stored in by_stage.get("store", []):
        assert stored.start_s >= max(s.end_s for s in by_stage[chain[-1]] if s.tile == stored.tile)


@pytest.mark.parametrize("chip", CHIPS)
def test_the_multiplications_of_all_tiles_are_the_product_s(chip):
    operation, chip = gemm(chip, (4096, 4096, 4096))
    line = timeline(operation, chip, tiles=10**6)
    tiles = {s.tile for s in line.spans if s.stage == "compute"}
    assert tiles == set(range(line.tiles))
    busy = sum(s.end_s - s.start_s for s in line.spans if s.stage == "compute")
    # No core can be quicker with its share than the nominal peak allows.
    assert busy >= operation.flop / chip.device().arithmetic("bf16").flop_per_s
    assert busy <= line.expected_s * 1.01


def test_spans_name_the_chip_s_own_engines_and_who_they_waited_for():
    line = timeline(*gemm("ascend-910c", (4096, 4096, 4096)), tiles=2)
    assert {s.engine for s in line.spans} == {"host", "MTE2", "MTE1", "cube", "FIXPIPE"}
    first = next(s for s in line.spans if s.engine == "cube")
    assert first.waits_for == "MTE1"
    assert {s.waits_for for s in line.spans} <= {"", "launch", "MTE2", "MTE1", "cube", "FIXPIPE"}


def test_a_910c_hands_scores_over_between_cube_and_vector_core():
    spans = timeline(*drawn("ascend-910c", "core"), tiles=1).spans
    begun = {s.engine: s.start_s for s in reversed(spans)}
    assert begun["MTE2"] < begun["cube"] < begun["L2 hand-over"] < begun["vector"]
    assert "L2 hand-over" not in {s.engine for s in timeline(*drawn("ascend-950dt", "core"), tiles=1).spans}


def test_units_of_attention_fill_and_drain_one_after_another():
    operation, chip = drawn("h20", "core")
    spans = timeline(operation, chip, tiles=3).spans
    second = next(s for s in spans if s.tile == 1 and s.stage == "load")
    done = max(s.end_s for s in spans if s.tile == 0 and s.stage == "vector")
    assert second.start_s > done and second.waits_for == "fill and drain"


def test_it_draws_one_setting_and_at_least_one_tile():
    operation, chip = gemm("h100", (64, 64, 64))
    with pytest.raises(ValueError, match="timeline: got 'gemm' with arrays, or tiles=0"):
        timeline(operation, chip, tiles=0)
    work = operations(load_config("tiny"), Workload(phase="decode", batch=1, context_tokens=64))
    nothing = next(op for op in work if op.kind == "elementwise").replace(
        read_bytes=0.0, write_bytes=0.0, vector_flop=0.0, weight_bytes=0.0, cache_write_bytes=0.0
    )
    assert timeline(nothing, chip).limit == "launch"
