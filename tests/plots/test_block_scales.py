import math

import numpy as np
import pytest

from workbench.plots.block_scales import (
    KIND,
    block_figure,
    frontier_figure,
    league_figure,
    scale_rules_figure,
)

VALUES = [
    {"number": 0.3, "stored": 0.5, "scale": 1.0},
    {"number": -0.1, "stored": 0.0, "scale": 1.0},
    {"number": 20.0, "stored": 24.0, "scale": 4.0},
    {"number": 0.0, "stored": 0.0, "scale": 4.0},
]
OUTCOMES = [
    {"format": "A", "kind": "integer", "error": 0.25, "text": "2 zeros"},
    {"format": "B", "kind": "HiF4", "error": 0.5, "text": "1 zero"},
]


def named(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def test_a_number_that_becomes_zero_is_marked_and_a_zero_is_not():
    figure = block_figure(VALUES, OUTCOMES, "B", reach=4)
    assert (named(figure, "stored as zero").x, named(figure, "stored").x) == ((1,), (0, 3))
    assert named(figure, "number").x == (0, 1, 3)  # the outlier is outside


def test_the_outlier_stands_at_the_edge_with_both_its_values():
    (note,) = block_figure(VALUES, OUTCOMES, "B", reach=4).layout.annotations
    assert (note.x, note.y, note.text) == (2, 4, "20 → 24")


def test_scales_are_steps_over_the_places_that_share_them():
    scale = named(block_figure(VALUES, OUTCOMES, "B", reach=4), "scale")
    assert scale.x == (-0.5, 0.5, 1.5, 2.5, 3.5)
    assert scale.y == (1.0, 1.0, 4.0, 4.0, 4.0)
    assert scale.line.shape == "hv"


def test_every_format_has_a_bar_and_the_one_shown_is_not_dimmed():
    figure = block_figure(VALUES, OUTCOMES, "B", reach=4)
    (bars,) = [trace for trace in figure.data if trace.type == "bar"]
    assert (bars.y, bars.x, bars.text) == (("A", "B"), (25, 50), ("2 zeros", "1 zero"))
    assert bars.marker.color == (KIND["integer"], KIND["HiF4"])
    assert bars.marker.opacity[0] < bars.marker.opacity[1] == 1
    with pytest.raises(ValueError, match="'int' has no colour"):
        block_figure(VALUES, [OUTCOMES[0] | {"kind": "int"}], "A", reach=4)


def test_a_scale_rule_has_a_line_in_both_panels_and_steps_are_marked():
    rows = [
        {"rule": r, "amax": a, "becomes": 2 * a, "error": a / 100}
        for r in ("floor", "ceil")
        for a in (13.0, 3.0)
    ]
    figure = scale_rules_figure(rows, largest=6, title="x")
    left, right = (trace for trace in figure.data if trace.name == "ceil")
    assert (left.x, left.y) == ((3.0, 13.0), (6.0, 26.0))
    assert right.y == (3.0, 13.0)
    assert {shape.x0 for shape in figure.layout.shapes} == {6, 12}
    assert named(figure, "no error").y == (3.0, 13.0)


def test_the_bound_is_six_decibels_a_bit_and_panels_hold_their_own_formats():
    rows = [
        {"format": f, "kind": k, "panel": p, "bits": b, "sqnr": s, "side": "top center"}
        for f, k, p, b, s in (
            ("A", "integer", "4", 4.25, 19),
            ("B", "HiF4", "4", 4.5, 21),
            ("C", "integer", "8", 8, 40),
        )
    ]
    figure = frontier_figure(rows, "x")
    first, second = (t for t in figure.data if t.name == "Shannon's bound")
    np.testing.assert_allclose(np.array(first.y) / np.array(first.x), 10 * math.log10(4))
    assert first.x[0] < 4.25
    assert second.x[0] > 4.5
    integers = [t for t in figure.data if t.name == "integer"]
    assert [(t.xaxis, t.text) for t in integers] == [("x", ("A",)), ("x2", ("C",))]
    assert [t.showlegend for t in integers] == [True, False]


def test_the_league_keeps_the_order_of_its_rows_and_tells_data_apart():
    rows = [
        {"format": f, "data": d, "sqnr": s} for f, s in (("B", 2.0), ("A", 3.0)) for d in ("normal", "heavy")
    ]
    figure = league_figure(rows, "x")
    assert figure.layout.yaxis.categoryarray == ("B", "A")
    normal, heavy = figure.data
    assert normal.x == (2.0, 3.0)
    assert (normal.marker.color, normal.marker.symbol) != (heavy.marker.color, heavy.marker.symbol)
