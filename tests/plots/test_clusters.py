"""Figures of clusters: numbers, units and colours as the rows say."""

import numpy as np
import pytest

from workbench.plots.clusters import (
    collective_figure,
    gain_figure,
    imbalance_figure,
    reach_figure,
    schedule_figure,
    stacked_figure,
)
from workbench.plots.template import VENDOR


def test_reach_is_a_staircase_in_gb_per_second_that_ends_at_the_edge():
    rows = [
        dict(system="X", vendor="nvidia", tier="node", devices=8, byte_per_s=450e9),
        dict(system="X", vendor="nvidia", tier="network", devices=np.inf, byte_per_s=50e9),
        dict(system="Y", vendor="nvidia", tier="rack", devices=72, byte_per_s=900e9),
    ]
    one, other = reach_figure(rows, "title").data
    assert one.y == (450, 450, 450, 50, 50) and one.x[2:] == (8, 8, 4 * 72)
    assert one.line.color == other.line.color == VENDOR["nvidia"] and one.line.dash != other.line.dash


def test_collectives_are_drawn_in_microseconds_with_bounds_and_points():
    size = np.array([1e3, 1e6])
    curve = dict(
        panel="all-reduce", name="X", bytes=size, lower=size / 1e10, expected=size / 5e9, upper=size / 1e9
    )
    dot = dict(panel="all-reduce", name="X", bytes=1e6, seconds=3e-4)
    band, line, dots = collective_figure([curve], [dot], "title").data
    assert line.y == pytest.approx((0.2, 200)) and line.line.dash == "dash"
    assert min(band.y) == pytest.approx(0.1) and max(band.y) == pytest.approx(1000)
    assert dots.y == pytest.approx((300,)) and dots.mode == "markers"


def test_stacked_parts_of_one_name_are_added_and_limits_marked():
    rows = [
        dict(case="a", part="x", value=1),
        dict(case="a", part="x", value=2),
        dict(case="b", part="y", value=5),
    ]
    figure = stacked_figure(
        rows, "t", "GiB", marks={"a": 9.0, "b": 9.0}, mark_name="limit", text={"a": "sum"}
    )
    x, y, marks, text = figure.data
    assert x.x == (3, 0) and y.x == (0, 5) and marks.x == (9, 9)
    assert text.text[0].strip() == "sum" and text.x == (9, 9)
    assert figure.layout.barmode == "stack" and figure.layout.xaxis.title.text == "GiB"


def test_imbalance_shows_the_mean_and_the_range_of_draws():
    rows = [dict(panel="8 ranks", name="in order", tokens=64, factors=np.array([1.0, 2.0, 3.0]))]
    (line,) = imbalance_figure(rows, "t").data
    assert line.y == (2,) and line.error_y.array == (1,) and line.error_y.arrayminus == (1,)


def test_a_schedule_draws_every_span_in_microseconds():
    spans = [
        dict(way="in turn", engine="link", stage="dispatch", wave=0, start_s=0.0, end_s=2e-6),
        dict(way="in turn", engine="matrix unit", stage="up", wave=0, start_s=2e-6, end_s=5e-6),
    ]
    figure = schedule_figure(spans, {"in turn": "<b>in turn</b>"}, "t")
    link, unit = figure.data
    assert (link.base, link.x) == ((0,), pytest.approx((2,))) and unit.base == pytest.approx((2,))
    assert unit.x == pytest.approx((3,)) and figure.layout.annotations[0].text == "<b>in turn</b>"


def test_measured_gains_are_hollow_diamonds():
    curve = dict(panel="flash", name="X", tokens=[1, 2], gain=[1.5, 1.6])
    line, dots = gain_figure([curve], [dict(panel="flash", tokens=1, gain=1.96)], "t").data
    assert line.y == (1.5, 1.6) and dots.y == (1.96,) and dots.marker.symbol == "diamond-open"
