"""Figures of chips: numbers, units and colours as the rows say."""

import numpy as np
import pytest

from workbench.plots.chip_limits import (
    category_figure,
    levels_figure,
    policy_figure,
    roofline_figure,
    sawtooth_figure,
    size_text,
    validation_figure,
)
from workbench.plots.chips import (
    LIMIT,
    LIMIT_TEXT,
    bounds_figure,
    breakdown_figure,
    pipeline_figure,
    resources_figure,
    time_text,
    waiting_rows,
)
from workbench.units import MIB


def span(engine, stage, start, end, waits_for="", tile=0):
    return dict(
        chip="X", engine=engine, stage=stage, tile=tile, start_s=start, end_s=end, waits_for=waits_for
    )


# Launch until 1 µs; two loads of 2 µs; the unit works 1 µs on each; done at 6 µs.
SPANS = [
    span("host", "launch", 0, 1e-6),
    span("MTE2", "load", 1e-6, 3e-6, "launch"),
    span("cube", "compute", 3e-6, 4e-6, "MTE2"),
    span("MTE2", "load", 3e-6, 5e-6, "MTE2", tile=1),
    span("cube", "compute", 5e-6, 6e-6, "MTE2", tile=1),
]


def test_waiting_is_counted_by_whom_it_is_for():
    shares = {(r["engine"], r["doing"], r["cause"]): r["share"] for r in waiting_rows(SPANS)}
    assert shares["cube", "works", "compute"] == pytest.approx(2 / 6)
    assert shares["cube", "waits", "launch"] == pytest.approx(1 / 6)
    # From 1 to 3 µs for the first load, from 4 to 5 for the second.
    assert shares["cube", "waits", "load"] == pytest.approx(3 / 6)
    assert shares["MTE2", "is done", ""] == pytest.approx(1 / 6)
    for engine in ("host", "MTE2", "cube"):
        assert sum(s for (who, _, _), s in shares.items() if who == engine) == pytest.approx(1)


def test_a_pipeline_draws_every_span_in_microseconds_in_the_colour_of_its_stage():
    figure = pipeline_figure(SPANS, [dict(chip="X", text="<b>X</b>")], "title")
    (load,) = [bar for bar in figure.data if bar.y == ("MTE2", "MTE2")]
    assert load.base == pytest.approx((1, 3)) and load.x == pytest.approx((2, 2))
    assert load.marker.color == LIMIT["load"] and load.marker.opacity[0] > load.marker.opacity[1]
    assert figure.layout.xaxis.title.text == "time (µs)" and "%" in figure.layout.xaxis2.title.text
    assert figure.layout.yaxis.categoryarray == ("cube", "MTE2", "host")
    assert {bar.name for bar in figure.data if bar.name} == {
        LIMIT_TEXT[s] for s in ("launch", "load", "compute")
    }


def test_each_resource_stands_at_its_share_of_the_expected_time():
    rows = [
        dict(chip="X", resource=r, seconds=s, expected_s=4e-6)
        for r, s in (("roofline", 1e-6), ("memory", 3e-6))
    ]
    figure = resources_figure(rows, "title")
    shares = {t.name: t.x[0] for t in figure.data}
    assert shares == pytest.approx({"roofline": 25, "main memory": 75})
    assert "%" in figure.layout.xaxis.title.text


def parts(variant, scale):
    return [
        dict(chip=chip, variant=variant, part=part, seconds=scale * s, lower_s=scale * s / 2,
             upper_s=scale * s * 3)
        for chip in ("X", "Y") for part, s in (("maps", 30e-6), ("core", 10e-6))
    ]  # fmt: skip


def test_a_breakdown_adds_up_and_says_how_much_a_variant_changes():
    figure = breakdown_figure(parts("released", 1) + parts("yours", 0.75), "title")
    totals = [t for t in figure.data if t.type == "scatter" and t.mode == "markers"]
    assert [t.x[0] for t in totals] == pytest.approx([40, 30, 40, 30])
    assert totals[0].error_x.array[0] == pytest.approx(80) and totals[0].error_x.arrayminus[
        0
    ] == pytest.approx(20)
    labels = [t.text[0].strip() for t in figure.data if t.type == "scatter" and t.mode == "text"]
    assert labels == ["", "−25.0%", "", "−25.0%"]
    assert "(µs)" in figure.layout.xaxis.title.text
    long = breakdown_figure([row | dict(seconds=row["seconds"] * 1e3) for row in parts("", 1)], "title")
    assert "(ms)" in long.layout.xaxis.title.text and long.data[0].x == pytest.approx((30, 30))


def test_an_uncertain_chip_is_hollow_and_its_band_is_drawn():
    row = dict(
        chip="X", vendor="Cambricon", case="a", lower_s=1e-6, expected_s=2e-6, upper_s=9e-6, roof_s=5e-7
    )
    band, dot, roof = bounds_figure([row | dict(is_uncertain=True)], "title").data
    assert (
        band.x == pytest.approx((1, 9)) and dot.x == pytest.approx((2,)) and roof.x == pytest.approx((0.5,))
    )
    assert dot.marker.color == "white"
    (_, solid, _) = bounds_figure([row | dict(is_uncertain=False)], "title").data
    assert solid.marker.color == solid.marker.line.color != "white"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.2e-6, "4.2 µs"), (0.00568, "5.68 ms"), (999e-6, "999 µs"), (2.5, "2.5 s")]
)
def test_times_are_written_in_their_unit(seconds, text):
    assert time_text(seconds) == text


def test_a_table_colours_each_cell_by_its_category():
    rows = [
        dict(x=x, y=y, category=c, text=c)
        for x, y, c in (("1", "a", "good"), ("2", "a", "bad"), ("1", "b", "bad"))
    ]
    colors = dict(bad="#ff0000", unused="#0000ff", good="#00ff00")
    heat, *legend = category_figure(rows, colors, "title", x="x", y="y").data
    scale = {
        v: next(c for edge, c in heat.colorscale if edge >= v / heat.zmax)
        for line in heat.z
        for v in line
        if v
    }
    assert [[scale.get(v) for v in line] for line in heat.z] == [["#00ff00", "#ff0000"], ["#ff0000", None]]
    assert [(t.name, t.marker.color) for t in legend] == [("bad", "#ff0000"), ("good", "#00ff00")]


def test_a_roof_bends_where_peak_and_bandwidth_meet():
    point = dict(chip="X", name="p", part="maps", flop_per_byte=10.0, flop_per_s=5e12, low=4e12, high=8e12)
    roof = dict(chip="X", format="fp8", flop_per_s=200e12, memory_byte_per_s=2e12)
    line, _, dot = roofline_figure([point], [roof], "title").data
    assert line.x[1] == 100 and line.y[1:] == (200, 200) and line.y[0] == pytest.approx(line.x[0] * 2)
    assert (dot.x, dot.y) == ((10.0,), (5.0,))
    assert (dot.error_y.array[0], dot.error_y.arrayminus[0]) == pytest.approx((3, 1))


def test_a_saw_tooth_has_a_line_for_each_tiling_and_a_dashed_one_for_the_best():
    m = np.array([1.0, 2.0])
    best = dict(chip="X", m=m, share=m / 4, low=m / 8, high=m / 2)
    figure = sawtooth_figure([dict(chip="X", tiling="t", m=m, share=m / 5)], [best], "title")
    thin, _, thick = figure.data
    assert list(thin.y) == [20, 40] and list(thick.y) == [25, 50] and thick.line.dash == "dash"
    assert "%" in figure.layout.yaxis.title.text


def test_a_size_without_a_published_value_is_hollow_with_a_question_mark():
    rows = [
        dict(chip="X", level="core", bytes=2**21, low=2**21, high=2**21),
        dict(chip="Y", level="core", bytes=None, low=2**20, high=2**22),
    ]
    (trace,) = levels_figure(rows, "title").data
    assert trace.text == ("2 MiB", "?") and trace.marker.color[1] == "white" and trace.x == (2, 2)
    assert list(trace.error_x.array) == [0, 2] and list(trace.error_x.arrayminus) == [0, 1]
    assert [size_text(s) for s in (2048, 3 * 2**20, 2**36)] == ["2 KiB", "3 MiB", "64 GiB"]


def test_a_validation_shows_points_and_errors_in_per_cent():
    points = [dict(kernel="gemm", label="H20", measured_s=1e-5, predicted_s=2e-5)]
    errors = [dict(kernel="gemm", rows=3, how=how, median=0.1, p90=0.3) for how in ("fitted", "left out")]
    figure = validation_figure(points, errors, "title", aim=0.15)
    dots, *lines, fitted, left_out = figure.data
    assert dots.x == pytest.approx((10,)) and dots.y == pytest.approx((20,)) and len(lines) == 3
    assert fitted.x == (10,) and fitted.error_x.array[0] == pytest.approx(20) and fitted.y == ("gemm (3)",)
    assert left_out.marker.color == "white" != fitted.marker.color


def test_chips_with_the_same_numbers_share_a_mark_and_those_without_stay_out():
    rows = [
        dict(chip=c, vendor="NVIDIA", tpp=15832.0, performance_density=d, outcome="denied")
        for c, d in (("H100", 19.4), ("H800", 19.4), ("?", None))
    ]
    (trace,) = policy_figure(rows, [dict(tpp=4800, density=1, text="rule")], "title").data
    assert trace.text == ("H100, H800",) and trace.x == (15832.0,)


def test_texts_of_close_marks_turn_away_from_each_other():
    sizes = {"beside": 33, "core": 29, "shared": 50, "main": 81920}
    rows = [
        {"chip": "A", "level": level, "bytes": size * MIB, "low": size * MIB, "high": size * MIB}
        for level, size in sizes.items()
    ]
    places = {t.name: t.textposition[0] for t in levels_figure(rows, "title").data}
    assert places == {
        "core": "bottom left", "beside": "top center", "shared": "bottom right", "main": "top center"
    }  # fmt: skip
