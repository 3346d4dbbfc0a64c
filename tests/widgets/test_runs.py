"""Explorers of training at scale: shares of time add up, and agree with faults drawn one by one."""

from itertools import pairwise

import numpy as np
import pytest

from workbench.chips.runs.faults import shares, simulate_run
from workbench.chips.runs.sources import load_faults
from workbench.plots.runs import PASS, TIME, frontier_figure, pipelines_figure, time_figure
from workbench.widgets.runs import SIZES, pipeline_explorer, pipeline_panel, time_explorer, time_row

FAULTS = load_faults("ascend-910c")


@pytest.mark.parametrize("chips", SIZES)
def test_shares_of_time_add_up_and_none_is_negative(chips):
    row = time_row(FAULTS, chips)
    parts = [row[name] for name in TIME]
    assert sum(parts) == pytest.approx(1) and min(parts) >= -1e-12


def test_shares_are_those_of_faults_drawn_one_by_one():
    faults = FAULTS.replace(spread=0.0, save_s=60.0)
    row = time_row(faults, 8192, 3600.0)
    events = simulate_run(faults, 8192, 3600.0, 4e7, np.random.default_rng(0))
    drawn = shares(events)
    assert row["work"] == pytest.approx(drawn["work"], rel=0.02)
    assert row["restarting"] == pytest.approx(drawn["restart"], rel=0.08)
    assert row["flapping links"] == pytest.approx(drawn["flap"], rel=0.08)


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "dualpipe"])
def test_a_rank_does_one_thing_at_a_time_and_all_of_its_work(schedule):
    panel = pipeline_panel(schedule, 4, 8, 2)
    for rank in range(1, 5):
        mine = sorted((s["start_s"], s["end_s"]) for s in panel["slots"] if s["rank"] == rank)
        assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(mine))
        assert sum(end - start for start, end in mine) == pytest.approx(8 * 3.0)
    figure = pipelines_figure([panel], "")
    assert {t.name for t in figure.data} <= set(PASS)


def test_the_explorers_follow_their_controls():
    pipelines, times = pipeline_explorer(), time_explorer()
    before = pipelines.figure.layout.title.text
    pipelines._controls["stages"].value = 8
    assert pipelines.figure.layout.title.text != before
    work = sum(times.figure.data[0].y)
    times._controls["restart"].value = 7200
    assert times.figure.data[0].name == "work" and sum(times.figure.data[0].y) < work


def test_time_is_stacked_in_the_order_of_its_names():
    figure = time_figure([time_row(FAULTS, n) for n in SIZES], "")
    assert [t.name for t in figure.data] == list(TIME)


def test_the_frontier_has_units_of_its_axes():
    point = {"group": "whole layers", "label": "1 layer", "bytes": 2e6, "seconds": 3e-6}
    figure = frontier_figure({"bytes": [4e6, 1e6], "seconds": [0.0, 5e-6]}, [point], "")
    assert list(figure.data[0].x) == pytest.approx([0, 5]) and list(figure.data[1].y) == [2.0]
