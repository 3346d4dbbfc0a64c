"""Published runs give points what their columns leave out; where several agree, nothing is guessed."""

import csv
import statistics

import pytest

from workbench.chips.command import DATA
from workbench.chips.validation.judge import current_engines
from workbench.chips.validation.rows import Unpredictable, read_table
from workbench.chips.validation.serving_layout import ServingLayout
from workbench.chips.validation.serving_recipes import FILE, Recipe, recipes_at, recipes_of, run_key
from workbench.chips.validation.serving_table import NEEDED, point_result, serving_points


def point(ranks="8", **cells):
    run = {"system": "b200_sxm", "backend": "trtllm", "precision": "fp8", "measured": "2026-03-23"}
    load = {"isl": "1024", "osl": "1024.0", "concurrency": "1600.0", "mode": "disagg"}
    return run | load | {"decode_tp_size": ranks, "decode_moe_ep_size": ranks} | cells


def test_a_point_is_the_run_that_its_system_lengths_and_users_name():
    assert recipes_of(point()) == [Recipe(2, 2, "dep", 8)]
    assert recipes_of(point(concurrency="1601")) == []
    assert recipes_of(point("inf")) == [] == recipes_of(point("eight"))
    # Another size of instance, or instances that the point states itself.
    assert recipes_of(point("16")) == [] == recipes_of(point(decode_num_workers="2"))
    # Runs of 2025 had other recipes.
    assert recipes_of(point(measured="2025-11-17")) == []


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [("tp", (8, 1, 8, 1)), ("tep", (8, 1, 1, 8)), ("dp", (1, 8, 8, 1)), ("dep", (1, 8, 1, 8))],
)
def test_a_layout_says_what_ranks_share(layout, sizes):
    assert Recipe(0, 3, layout, 8).decode() == ServingLayout(*sizes, 3.0)


def test_devices_of_both_pools_as_one_group_are_taken_apart():
    both = point("36", mode="agg", tp_size="36", system="gb200", precision="fp4", measured="2025-11-17")
    assert recipes_of(both | {"concurrency": "1075"}) == [Recipe(0, 1, "dep", 32)]


def test_the_faster_of_two_speeds_drafts_and_one_speed_alone_stays_open():
    either = point(concurrency="32")
    plain, drafting = Recipe(0, 3, "tp", 8), Recipe(3, 8, "tp", 8)
    assert set(recipes_of(either)) == {plain, drafting}
    times = [11.0, 5.2, 10.9]
    assert recipes_at(either, 5.2, times) == [drafting]
    assert recipes_at(either, 10.9, times) == [plain]
    with pytest.raises(Unpredictable, match="8 × tp8 with 3 drafts"):
        recipes_at(either, 10.9, [10.9, 11.0])


def test_runs_that_differ_in_their_instances_alone_are_all_kept():
    found = recipes_at(point(concurrency="8", isl="8192", osl="1024"), 3.6, [3.6])
    assert {r.workers for r in found} == {2, 6} and {r.drafts for r in found} == {3}


def test_a_run_has_one_key_whatever_the_listing():
    assert run_key(point()) == run_key(point(isl="1024.0", concurrency="1600"))
    # Sizes multiplied once more by the exporter.
    assert run_key(point("64", decode_moe_tp_size="8", decode_moe_ep_size="8")) == run_key(point())


def test_points_that_no_fit_has_seen_come_out_as_those_that_it_has():
    points = serving_points(read_table(DATA / "silicon_deepseek.csv", NEEDED))
    stacks = current_engines()
    results = [point_result(p, stacks) for p in points if p.is_published]
    errors = [abs(r.error) for r in results if r.error is not None]
    assert len(errors) > 220 and statistics.median(errors) < 0.18
    assert sum(bool(p.reason) for p in points) < 200


def test_the_file_lists_every_run_once():
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    assert len(rows) == len(set(rows)) > 700
