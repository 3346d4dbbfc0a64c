"""Expert layers on the clock: one thing at a time for each engine, stages in order, closed forms."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.chips import load_cluster
from workbench.chips.overlap import ExpertStages
from workbench.chips.waves import ENGINES, WAYS, layer_stages, makespan, schedule
from workbench.config import load_config

FLASH = load_config("deepseek-v4-flash")
times = st.floats(0.01, 10.0)
stages_of = st.builds(ExpertStages, times, times, times, times, times)
loads_of = st.lists(st.floats(0.1, 5.0), min_size=1, max_size=9)


@settings(deadline=None)
@given(stages_of, loads_of, st.sampled_from(WAYS))
def test_engines_do_one_thing_at_a_time_and_all_work_is_done_once(stages, loads, way):
    spans = schedule(stages, loads, way)
    for engine in set(ENGINES.values()):
        mine = sorted((s.start_s, s.end_s) for s in spans if s.engine == engine)
        assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in itertools.pairwise(mine))
    for stage in fields(stages):
        mine = [s for s in spans if s.stage == stage.name]
        assert sorted(s.wave for s in mine) == list(range(len(loads)))
        assert sum(s.end_s - s.start_s for s in mine) == pytest.approx(getattr(stages, stage.name))


@settings(deadline=None)
@given(stages_of, loads_of, st.sampled_from(WAYS))
def test_a_wave_passes_its_stages_in_order(stages, loads, way):
    spans = schedule(stages, loads, way)
    for wave in range(len(loads)):
        mine = sorted((s for s in spans if s.wave == wave), key=lambda s: list(ENGINES).index(s.stage))
        assert all(later.start_s >= earlier.end_s - 1e-9 for earlier, later in itertools.pairwise(mine))


@settings(deadline=None)
@given(stages_of, loads_of)
def test_in_turn_is_the_sum_and_one_wave_knows_no_overlap(stages, loads):
    assert makespan(schedule(stages, loads, "in turn")) == pytest.approx(stages.in_turn)
    assert makespan(schedule(stages, [1.0], "in waves")) == pytest.approx(stages.in_turn)


@settings(deadline=None)
@given(stages_of)
def test_many_small_waves_in_pairs_reach_the_longer_of_each_pair(stages):
    # Whatever the parts, a wave of a hundredth is all that cannot overlap.
    assert makespan(schedule(stages, [1.0] * 100, "in pairs")) == pytest.approx(stages.in_pairs, rel=0.03)


@settings(deadline=None)
@given(stages_of, st.integers(1, 12))
def test_equal_waves_are_close_to_the_closed_form(stages, waves):
    closed = float(stages.in_waves(waves))
    assert abs(makespan(schedule(stages, [1.0] * waves)) - closed) <= stages.in_turn / waves + 1e-9


def test_a_schedule_worked_by_hand():
    # Two waves, each second of a stage cut in halves: link 0-1-2, matrix 1-2-3, vector 2-3-4, matrix 3-4-5,
    # link 4-5-6 for equal stages of two seconds; the matrix unit is never asked for two things at once.
    spans = schedule(ExpertStages(2.0, 2.0, 2.0, 2.0, 2.0), [1.0, 1.0])
    found = {(s.stage, s.wave): (s.start_s, s.end_s) for s in spans}
    assert found["dispatch", 1] == (1, 2) and found["up", 0] == (1, 2)
    assert found["up", 1] == (2, 3) and found["activation", 0] == (2, 3)
    assert found["down", 0] == (3, 4) and found["combine", 1] == (5, 6)
    assert makespan(spans) == 6.0


def test_stages_are_those_of_the_kernels_and_links():
    cluster = load_cluster("b200", chips=8)
    many = layer_stages(FLASH, cluster, np.array([1.0, 512.0, 8192.0]), 8)
    one = layer_stages(FLASH, cluster, 512.0, 8)
    for field in fields(many):
        values = getattr(many, field.name)
        assert values.shape == (3,) and np.all(np.diff(values) > 0)
        assert values[1] == pytest.approx(float(getattr(one, field.name)))
    # 8,192 tokens to six experts of 2 × 4096 × 2048 weights, forward: no faster than the published peak.
    flop = 2 * 8192 * 6 * 4096 * 2 * 2048
    assert many.up[2] > flop / cluster.chip.peak_flop_per_s["fp8"]
    # Each way carries 6 copies of 4,096 channels to seven other devices in eight: a byte there, two back.
    sent = 8192 * 6 * 4096 * 7 / 8
    bandwidth = cluster.levels[0].byte_per_s
    assert many.dispatch[2] > sent / bandwidth and many.combine[2] > 2 * sent / bandwidth


def test_bad_input_is_refused():
    stages = ExpertStages(1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="way 'at once' is unknown"):
        schedule(stages, [1.0], "at once")
    with pytest.raises(ValueError, match=r"loads are \[1.0, 0.0\]"):
        schedule(stages, [1.0, 0.0])
    with pytest.raises(ValueError, match="no routed experts"):
        layer_stages(load_config("llama-3.1-405b"), load_cluster("b200", chips=8), 8.0, 8)
