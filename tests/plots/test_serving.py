"""Figures of serving: numbers, units and colours as the rows say."""

import pytest

from workbench.plots.serving import front_figure, lines_figure, ratio_figure, tornado_figure
from workbench.plots.template import VENDOR

FRONT = dict(system="X", vendor="huawei", interval_s=[0.01, 0.02], rate=[10, 20], text=["a", "b"])


def test_a_front_is_drawn_in_milliseconds_with_measured_points_in_the_vendor_s_colour():
    dot = dict(system="X", vendor="huawei", interval_s=0.03, rate=15, text="row 1")
    figure = front_figure([FRONT], [dot], "t", limits_s=(0.05,))
    line, dots = figure.data
    assert line.x == pytest.approx((10, 20)) and dots.x == pytest.approx((30,))
    assert line.line.color == dots.marker.color == VENDOR["huawei"]
    assert figure.layout.shapes[0].x0 == pytest.approx(50) and "ms" in figure.layout.xaxis.title.text


def test_a_ratio_has_its_bounds_and_the_aim_on_both_sides():
    rows = [
        dict(group="decode", label="one", ratio=1.2, lower=0.9, upper=2.0),
        dict(group="decode", label="two", ratio=0.8, lower=None, upper=None),
    ]
    figure = ratio_figure(rows, "t", aim=0.25)
    (dots,) = figure.data
    assert dots.error_x.array == pytest.approx((0.8, 0)) and dots.error_x.arrayminus == pytest.approx(
        (0.3, 0)
    )
    assert sorted(shape.x0 for shape in figure.layout.shapes) == pytest.approx([0.8, 1, 1.25])
    assert figure.layout.yaxis.ticktext == ("one", "two")


def test_lines_have_bands_only_where_bounds_are_known():
    bounded = dict(name="a", x=[1, 2], y=[3, 4], lower=[1, 2], upper=[5, 6])
    figure = lines_figure([bounded, dict(name="b", x=[1, 2], y=[3, 4])], "t", "x", "y")
    assert [trace.name for trace in figure.data] == [None, "a", "b"]
    assert min(figure.data[0].y) == 1 and max(figure.data[0].y) == 6


def test_a_tornado_s_bar_goes_from_one_end_to_the_other():
    rows = [
        dict(name="a", kind="fitted", lower=1, upper=2, lower_value=30, upper_value=20, base=25),
        dict(name="b", kind="assumed", lower=1, upper=2, lower_value=24, upper_value=26, base=25),
    ]
    figure = tornado_figure(rows, "t")
    assert [(bar.name, bar.base, bar.x) for bar in figure.data] == [
        ("fitted", (20,), (10,)),
        ("assumed", (24,), (2,)),
    ]
    assert figure.layout.shapes[0].x0 == 25 and figure.layout.yaxis.categoryarray == ("b", "a")
    assert len(tornado_figure(rows, "t", most=1).data) == 1
