"""The pictures of extraction and its detection: what is drawn where."""

import math

import numpy as np
import pytest

from workbench.plots.extraction import (
    auroc_figure,
    calibration_figure,
    defence_figure,
    delay_figure,
    evidence_figure,
    queries_figure,
    roc_figure,
    scores_figure,
)


def test_queries_are_in_order_with_levels_as_lines():
    rows = [
        {"client": c, "queries": q, "value": v, "low": v - 0.1, "high": v + 0.2}
        for c in "ab"
        for q, v in ((100, 0.6), (10, 0.2))
    ]
    figure = queries_figure(rows, {"teacher": 0.9, "base": 0.1}, "t")
    a, _, teacher, base = figure.data
    assert list(a.x) == [10, 100] and list(a.y) == [0.2, 0.6]
    assert list(a.error_y.array) == pytest.approx([0.2, 0.2])
    assert list(teacher.y) == [0.9, 0.9] and list(base.y) == [0.1, 0.1] and list(base.x) == [10, 100]
    assert figure.layout.xaxis.title.text == "queries"


def test_roc_has_a_panel_a_set_of_attacks_and_one_legend_entry_a_detector():
    zero_to_one = np.array([0.0, 0.5, 1.0])
    rows = [
        {"attacks": a, "detector": d, "false": zero_to_one, "true": zero_to_one}
        for a in ("known", "new")
        for d in ("volume", "linked")
    ]
    figure = roc_figure(rows)
    assert [note.text for note in figure.layout.annotations] == ["known", "new"]
    assert sum(line.showlegend for line in figure.data) == 2
    assert min(figure.data[0].x) > 0  # the axis is logarithmic


def test_areas_stand_at_their_style():
    rows = [
        {"style": s, "detector": d, "value": 0.8, "low": 0.7, "high": 0.85}
        for s in ("pool", "slow")
        for d in ("x", "y")
    ]
    figure = auroc_figure(rows)
    assert list(figure.layout.yaxis.ticktext) == ["slow", "pool"]
    for trace in figure.data:
        assert [round(y) for y in trace.y] == [1, 0]
        assert list(trace.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert figure.data[0].y[0] != figure.data[1].y[0]


def test_campaigns_that_were_never_noticed_have_a_mark_of_their_own():
    rows = [
        {"style": "pool", "day": 1.0, "leaked": 0.1},
        {"style": "pool", "day": 2.0, "leaked": 0.2},
        {"style": "slow", "day": math.inf, "leaked": 1.0},
    ]
    noticed, never = delay_figure(rows).data
    assert list(noticed.x) == [0.1, 0.2] and list(never.x) == [1.0]
    assert noticed.y[0] != noticed.y[1] and round(never.y[0]) == 0
    assert noticed.marker.symbol != never.marker.symbol


def test_calibration_is_the_share_at_or_below():
    figure = calibration_figure([{"test": "x", "p": [0.5, 0.1]}, {"test": "x", "p": [0.9, 0.2]}], "t")
    diagonal, own = figure.data
    assert list(diagonal.x) == list(diagonal.y) == [0, 1]
    assert list(own.x) == [0, 0.1, 0.2, 0.5, 0.9, 1] and list(own.y) == [0, 0.25, 0.5, 0.75, 1, 1]


def test_evidence_is_a_row_a_student():
    rows = [{"student": s, "test": "x", "value": v} for s, v in (("guilty", 5.0), ("innocent", 0.2))]
    figure = evidence_figure(rows, "z", "t", level=1.6)
    assert list(figure.data[0].x) == [5.0, 0.2]
    assert [round(y) for y in figure.data[0].y] == [1, 0]
    assert figure.layout.shapes[0].x0 == 1.6 and figure.layout.xaxis.title.text == "z"
    assert not figure.data[0].showlegend


def test_defences_are_labelled_points():
    rows = [
        {"reply": r, "kept": k, "value": 0.5, "low": 0.4, "high": 0.6} for r, k in (("whole", 1), ("none", 0))
    ]
    (points,) = defence_figure(rows).data
    assert list(points.text) == ["whole", "none"] and list(points.x) == [1, 0]


def test_scores_are_shares_of_each_group():
    figure = scores_figure(np.array([1.0, 2.0]), np.array([5.0]), 3.0, "t")
    assert [trace.histnorm for trace in figure.data] == ["probability"] * 2
    assert figure.layout.shapes[0].x0 == 3.0
