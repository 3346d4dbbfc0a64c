"""Faults: closed forms against an event simulation, known constants, and limits that need no model."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.chips.runs.faults import (
    Faults,
    best_interval,
    daly,
    goodput,
    shares,
    simulate_run,
    simulated_share,
    slowest,
    useful_share,
    young,
)

HOUR = 3600.0
# A fault every ten hours of the cluster, ten minutes to restart, a minute to save.
PLAIN = Faults(fault_rate=1 / (1000 * 10 * HOUR), restart_s=600.0, save_s=60.0)


@pytest.mark.parametrize("interval", [600.0, 2000.0, 8000.0])
@pytest.mark.parametrize("changes", [{}, {"flap_rate": 1 / (1000 * HOUR), "flap_s": 90.0}, {"save_s": 300.0}])
def test_the_closed_form_is_the_mean_of_many_runs(interval, changes):
    faults = PLAIN.replace(**changes)
    found = simulated_share(faults, 1000, interval, 2000 * HOUR, runs=12, seed=1)
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert float(useful_share(faults, 1000, interval)) == pytest.approx(found.mean(), abs=4 * error + 5e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(1, 200), st.floats(0, 2000), st.floats(1, 500), st.floats(0, 50), st.floats(0, 300),
    st.floats(100, 20000), st.integers(0, 99),
)  # fmt: skip
def test_a_run_fills_its_time_without_gaps(between_h, restart, save, flaps_per_day, flap, interval, seed):
    faults = Faults(1 / (between_h * HOUR), restart, save, flaps_per_day / (24 * HOUR), flap)
    events = simulate_run(faults, 1, interval, 300 * HOUR, np.random.default_rng(seed))
    assert events[0].start_s == 0 and events[-1].end_s == pytest.approx(300 * HOUR)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in itertools.pairwise(events))
    assert sum(shares(events).values()) == pytest.approx(1)
    # Without flaps, no fault costs more than a segment with its checkpoint.
    lost = 0.0
    for event in events:
        lost = lost + event.end_s - event.start_s if event.kind == "lost" else 0.0
        assert flaps_per_day > 0 or lost <= (interval + save) * 1.0001


def test_a_fault_takes_back_what_was_not_saved():
    class Scripted:
        """Faults after 250 s of running, and then never."""

        waits = iter([250.0, math.inf])

        def exponential(self, _):
            return next(self.waits)

    faults = Faults(1.0, restart_s=30.0, save_s=20.0)
    events = simulate_run(faults, 1, 100.0, 450.0, Scripted())
    assert [(e.kind, e.start_s, e.end_s) for e in events] == [
        ("work", 0, 100), ("save", 100, 120), ("work", 120, 220), ("save", 220, 240), ("lost", 240, 250),
        ("restart", 250, 280), ("work", 280, 380), ("save", 380, 400), ("work", 400, 450),
    ]  # fmt: skip


def test_young_and_daly_are_near_the_best_interval_while_faults_are_rare():
    # 60 s to save, 10 h between faults: √(2 · 60 · 36,000) = 2,078.5 s.
    assert young(60.0, 10 * HOUR) == pytest.approx(2078.46, abs=0.01)
    best = best_interval(PLAIN, 1000)
    assert daly(60.0, 10 * HOUR) == pytest.approx(best, rel=2e-3)
    assert abs(daly(60.0, 10 * HOUR) - best) < abs(young(60.0, 10 * HOUR) - best)
    # Every other interval is worse; and where saving takes as long as the time between faults, so says Daly.
    around = useful_share(PLAIN, 1000, best * np.array([0.5, 0.9, 1.1, 2.0]))
    assert (around < useful_share(PLAIN, 1000, best)).all()
    assert daly(500.0, 200.0) == 200.0


def test_without_faults_only_the_checkpoints_cost():
    calm = Faults(0.0, 600.0, 60.0)
    assert float(useful_share(calm, 10**6, 540.0)) == pytest.approx(0.9)
    assert calm.between_s(10**6) == math.inf
    assert goodput(calm, 1000) == pytest.approx(1) and goodput(PLAIN.replace(save_s=0.0), 1) > 0.99


def test_goodput_falls_with_the_cluster_and_with_every_fault():
    at = [goodput(PLAIN, n) for n in (100, 1000, 10_000, 100_000)]
    assert at == sorted(at, reverse=True) and at[0] > 0.97
    for changes in (
        {"fault_rate": 2 * PLAIN.fault_rate}, {"restart_s": 1200.0}, {"save_s": 120.0}, {"spread": 0.02},
        {"flap_rate": 1e-7, "flap_s": 100.0},
    ):  # fmt: skip
        assert goodput(PLAIN.replace(**changes), 1000) < at[1]


@pytest.mark.parametrize(
    ("ranks", "mean"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (10, 1.5388)]
)
def test_the_slowest_of_few_is_the_known_mean_of_the_largest_normal_number(ranks, mean):
    assert slowest(0.1, ranks) == pytest.approx(1 + 0.1 * mean, abs=2e-4)


def test_the_slowest_of_many_is_that_of_a_draw():
    drawn = np.random.default_rng(0).normal(size=(400, 5000)).max(axis=1)
    assert (slowest(1.0, 5000) - 1) == pytest.approx(drawn.mean(), abs=0.06)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Faults(-1.0, 1.0, 1.0), "Faults: got .* change the negative one"),
        (lambda: best_interval(Faults(0.0, 1.0, 1.0), 5), "best_interval: fault rate 0.0, save 1.0 s"),
        (lambda: slowest(0.1, 0), "slowest: 0 ranks"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
