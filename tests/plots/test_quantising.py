import pytest

from workbench.plots.quantising import (
    chip_figure,
    error_figure,
    format_figure,
    share_figure,
    spread_figure,
    sweep_figure,
)
from workbench.plots.template import VENDOR


def titles(figure):
    return [axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes()) if axis.title.text]


def test_every_product_is_a_point_in_its_roles_panel_and_its_recipes_colour():
    rows = [
        dict(recipe=recipe, product=f"model.layers.{i}.x", role=role, sqnr_db=float(10 * i + len(role)))
        for recipe in ("a", "b")
        for i, role in enumerate(("linear", "experts", "linear"))
    ]
    figure = error_figure(rows)
    assert [a.text for a in figure.layout.annotations] == ["routed experts", "linear maps"]
    experts, linear = figure.data[:2]
    assert (experts.y, experts.xaxis) == ((17.0,), "x")
    assert (linear.y, linear.xaxis, linear.customdata) == ((6.0, 26.0), "x2", ("0.x", "2.x"))
    assert experts.line.color == linear.line.color != figure.data[2].line.color
    assert "signal to noise of its output (dB)" in titles(figure)


def test_runs_are_circles_means_have_bars_and_the_limit_is_a_band():
    rows = [dict(panel="p", name="FP8", seed=s, value=v) for s, v in enumerate((0.1, 0.3))]
    rows += [dict(panel="q", name="FP8", seed=0, value=2.0)]
    means = [
        dict(panel="p", name="FP8", mean=0.2, low=-0.1, high=0.6, limit=0.25),
        dict(panel="q", name="FP8", mean=2.0, low=1.0, high=3.0),
    ]
    figure = spread_figure(rows, means, "a title", "gap (%)")
    mean, runs = figure.data[:2]
    assert mean.x == (0.2,)
    assert mean.error_x.array == pytest.approx((0.4,))
    assert mean.error_x.arrayminus == pytest.approx((0.3,))
    assert runs.x == (0.1, 0.3)
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(band.x0, band.x1) for band in bands] == [(-0.25, 0.25)]
    assert figure.layout.title.text == "a title"
    assert "gap (%)" in titles(figure)


def test_a_sweep_is_sorted_dashed_and_ticked_where_it_was_run():
    rows = [dict(series="s", x=x, y=y) for x, y in ((4096, 3.0), (256, 1.0))]
    figure = sweep_figure(rows, "t", "tokens", "error (no unit)", log_y=True)
    (line,) = figure.data
    assert (line.x, line.y, line.line.dash) == ((256, 4096), (1.0, 3.0), "dash")
    assert figure.layout.xaxis.ticktext == ("256", "4,096")
    assert figure.layout.yaxis.type == "log"
    assert titles(figure) == ["tokens", "error (no unit)"]


def test_shares_are_percent_and_limits_are_named():
    rows = [dict(series="s", log2=i, share=share) for i, share in ((1, 0.75), (0, 0.25))]
    figure = share_figure(rows, "t", "log2", {"limit": 11})
    assert (figure.data[0].x, figure.data[0].y) == ((0, 1), (25.0, 75.0))
    assert [(s.x0, a.text) for s, a in zip(figure.layout.shapes, figure.layout.annotations, strict=True)] == [
        (11, "limit")
    ]


def test_a_chip_has_its_vendors_colour():
    rows = [
        dict(chip="h800", vendor="NVIDIA", kl=1e-4),
        dict(chip="ascend-950", vendor="Huawei", kl=2e-4),
        dict(chip="b200", vendor="NVIDIA", kl=3e-4),
        dict(chip="v4-reference", vendor=None, kl=3e-4),
    ]
    figure = chip_figure(rows)
    assert [(dots.name, dots.marker.color, list(dots.y)) for dots in figure.data] == [
        ("NVIDIA", VENDOR["nvidia"], ["h800", "b200"]),
        ("Huawei", VENDOR["huawei"], ["ascend-950"]),
        ("reference", VENDOR["other"], ["v4-reference"]),
    ]
    assert figure.layout.xaxis.type == "log"


def test_the_chosen_weight_stands_out():
    errors = [dict(product=f"model.layers.{i}", role="linear", sqnr_db=20.0 + i) for i in range(3)]
    sizes = [dict(series=s, log2=i, share=0.5) for s in ("weights", "errors") for i in (0, 1)]
    figure = format_figure(errors, sizes, chosen="model.layers.1", fmt="hif4")
    points = next(trace for trace in figure.data if trace.name == "linear maps")
    assert list(points.marker.size) == [8, 15, 8]
    assert [a.text for a in figure.layout.annotations] == ["weights in hif4", "1"]
    assert figure.data[-1].y == (50.0, 50.0)
