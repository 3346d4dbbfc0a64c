"""Parallel sizes of serving points: what exporters multiplied is undone, what nobody says stays open."""

import csv

import pytest

from workbench.chips.command import DATA
from workbench.chips.validation.rows import Unpredictable
from workbench.chips.validation.serving_layout import ServingLayout, layout_of_point, listed_in_full
from workbench.config import load_config

V3 = load_config("deepseek-v3")
NAMES = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")


def point(tp, dp, moe_tp, ep, *, split=False, **cells):
    prefix = "decode_" if split else ""
    sizes = {prefix + name: str(size) for name, size in zip(NAMES, (tp, dp, moe_tp, ep), strict=True)}
    run = {"system": "b200_sxm", "backend": "sglang", "precision": "fp8", "measured": "2026-02-01"}
    load = {"isl": "1024", "osl": "1024", "concurrency": "64", "mode": "disagg" if split else "agg"}
    return run | load | sizes | cells


@pytest.mark.parametrize(
    ("sizes", "layout"),
    [
        ((8, 1, 8, 1), ServingLayout(8, 1, 8, 1)),
        ((1, 8, 1, 8), ServingLayout(1, 8, 1, 8)),
        # TP8 with EP8, multiplied by the exporter: eight devices, not 64.
        ((64, 1, 8, 8), ServingLayout(8, 1, 1, 8)),
        ((1, 16, 4, 4), ServingLayout(1, 4, 1, 4)),
        # 2048 channels cut in 32 would be half a block of scales: experts are spread instead.
        ((1, 32, 32, 1), ServingLayout(1, 32, 1, 32)),
    ],
)
def test_sizes_are_read_as_one_instance(sizes, layout):
    assert layout_of_point(point(*sizes), V3, {}) == layout


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((8, 1, 2, 2), "contradict"),
        ((72, 1, 72, 1), "prefill and decoding together"),
        (("", 1, 1, 1), "not stated"),
    ],
)
def test_sizes_that_are_no_layout_are_refused(sizes, reason):
    with pytest.raises(Unpredictable, match=reason):
        layout_of_point(point(*sizes), V3, {})


def test_a_listing_without_instances_borrows_them_from_its_fuller_twin():
    whole = point(8, 1, 1, 8, split=True, decode_num_workers="4")
    short = point(8, 1, 2, 4, split=True)
    full = listed_in_full([whole, short])
    assert layout_of_point(short, V3, full) == ServingLayout(8, 1, 1, 8, 4.0)
    with pytest.raises(Unpredictable, match="number of decoding instances"):
        layout_of_point(short | {"concurrency": "128"}, V3, full)
    # Two listings that disagree help nobody.
    other = whole | {"decode_num_workers": "5"}
    assert not listed_in_full([whole, other])


def test_most_points_with_stated_sizes_have_a_layout():
    with (DATA / "silicon_deepseek.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    full, found = listed_in_full(rows), 0
    for row in rows:
        try:
            layout = layout_of_point(row, V3, full)
        except Unpredictable:
            continue
        found += 1
        assert layout.tp * layout.dp == layout.moe_tp * layout.ep <= 72
    assert found > 550
