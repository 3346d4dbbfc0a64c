"""Pipelines against a ticking clock, published bubbles, and what no schedule may change."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.slow_pipeline import makespan
from workbench.chips.runs.orders import order_of
from workbench.chips.runs.pipeline import PartTime, play
from workbench.chips.training_step import Recipe

UNIT = PartTime(1.0, 2.0, 1.0)


@st.composite
def settings_of(draw):
    schedule = draw(st.sampled_from(["1f1b", "interleaved", "dualpipe"]))
    stages = 2 * draw(st.integers(1, 4))
    chunks = draw(st.integers(1, 3)) if schedule == "interleaved" else 1
    micro_batches = {
        "1f1b": lambda: draw(st.integers(1, 12)),
        "interleaved": lambda: stages * draw(st.integers(1, 3)),
        "dualpipe": lambda: 2 * draw(st.integers(stages, stages + 4)),
    }[schedule]()
    forward, backward = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    return schedule, stages, micro_batches, chunks, forward, backward, draw(st.integers(1, backward - 1))


@settings(max_examples=40, deadline=None)
@given(settings_of())
def test_the_played_time_is_that_of_a_ticking_clock(setting):
    schedule, stages, micro_batches, chunks, forward, backward, weight = setting
    orders = order_of(schedule, stages, micro_batches, chunks)
    plain = [
        [tuple((w.kind, w.micro_batch, w.part, w.route) for w in work) for work in rank] for rank in orders
    ]
    ticks = {"forward": forward, "backward": backward, "weight": weight, "input": backward - weight}
    played = play(schedule, stages, micro_batches, [PartTime(forward, backward, weight)], chunks=chunks)
    assert played.seconds == makespan(plain, ticks.__getitem__, stages * chunks)


@settings(max_examples=40, deadline=None)
@given(settings_of())
def test_every_micro_batch_passes_every_part_once_each_way(setting):
    schedule, stages, micro_batches, chunks, forward, backward, weight = setting
    played = play(schedule, stages, micro_batches, [PartTime(forward, backward, weight)], chunks=chunks)
    seen = [w for slot in played.slots for w in slot.work]
    parts = stages * chunks
    for kinds in (("forward",), ("backward", "input"), ("backward", "weight")):
        passes = {(w.route, w.micro_batch, w.part) for w in seen if w.kind in kinds}
        assert len(passes) == sum(w.kind in kinds for w in seen) == micro_batches * parts
    # No schedule makes work of its own, and nothing runs twice at once on a rank.
    assert sum(played.busy_s) == pytest.approx(micro_batches * parts * (forward + backward))
    for rank in range(stages):
        mine = sorted((s.start_s, s.end_s) for s in played.slots if s.rank == rank)
        assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(mine))


@pytest.mark.parametrize("stages", [2, 4, 8, 16])
def test_bubbles_are_the_published_ones(stages):
    micro_batches = 4 * stages
    work = 3.0 * micro_batches
    assert play("1f1b", stages, micro_batches, [UNIT]).seconds - work == pytest.approx((stages - 1) * 3)
    cut = play("interleaved", stages, micro_batches, [UNIT.cut(4)], chunks=4)
    assert cut.seconds - work == pytest.approx((stages - 1) * 3 / 4)
    for together in (1.0, 2.5 / 3, 0.7):
        # V3, table 2: (p/2 − 1)(F&B + B − 3W), on the ranks that idle most.
        dual = play("dualpipe", stages, micro_batches, [PartTime(1.0, 2.0, 1.0, together)])
        assert max(dual.bubble_s) == pytest.approx((stages / 2 - 1) * (3 * together + 2 - 3), abs=1e-9)


@pytest.mark.parametrize(("schedule", "chunks"), [("1f1b", 1), ("interleaved", 3), ("dualpipe", 1)])
def test_the_recipe_s_average_bubble_is_the_played_one(schedule, chunks):
    recipe = Recipe(sequence_tokens=64, sequences=16, schedule=schedule, chunks=chunks)
    played = play(schedule, 8, 32, [UNIT.cut(chunks)], chunks=chunks)
    assert recipe.bubble(8) * 3 == pytest.approx(played.seconds - 3 * 32)


def test_memory_of_1f1b_grows_towards_the_first_stage_and_dualpipe_levels_it():
    # Micro-batches whose activations wait: p − rank for 1F1B; p + 1 everywhere for DualPipe (V3, table 2).
    assert play("1f1b", 8, 40, [UNIT]).in_flight == tuple(range(8, 0, -1))
    assert max(play("dualpipe", 8, 40, [UNIT]).in_flight) == 9


def test_the_slowest_stage_sets_the_pace():
    times = [UNIT, UNIT, PartTime(1.5, 3.0, 1.5), UNIT]
    slow = play("1f1b", 4, 100, times)
    # It works nearly without a pause: only until the first pass arrives and after its last has left.
    assert slow.busy_s[2] == pytest.approx(450) and 450 < slow.seconds <= 450 + 3 * 3.0
    assert slow.bubble_s[2] == min(slow.bubble_s) and slow.bubble_s[0] > 100


def test_a_hop_delays_only_what_changes_ranks():
    assert play("1f1b", 1, 5, [UNIT], hop_s=1.0).seconds == 15
    # Two stages, one micro-batch: forward, hop, forward, backward, hop, backward.
    assert play("1f1b", 2, 1, [UNIT], hop_s=0.5).seconds == 1 + 0.5 + 1 + 2 + 0.5 + 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: order_of("gpipe", 2, 4), r"order_of: schedule 'gpipe' is unknown; choose one of"),
        (lambda: order_of("1f1b", 0, 4), r"order_of: 0 stages, 4 micro-batches, 1 chunks; all must be 1"),
        (lambda: order_of("1f1b", 2, 4, 2), r"chunks 1 unless interleaved"),
        (lambda: order_of("interleaved", 4, 6, 2), r"order_of: 6 micro-batches over 4 stages; .* multiple"),
        (lambda: order_of("dualpipe", 3, 8), r"order_of: DualPipe with 3 stages and 8 micro-batches"),
        (lambda: order_of("dualpipe", 4, 6), r"at least twice as many micro-batches"),
        (lambda: play("1f1b", 4, 4, [UNIT] * 3), r"play: got times of 3 parts; 4 stages of 1 chunks have 4"),
        (lambda: PartTime(1.0, 2.0, 3.0), r"PartTime: .* weight is part of backward"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
