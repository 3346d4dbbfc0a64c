import pytest

from workbench.plots.reasoning import (
    curves_figure,
    lengths_figure,
    pass_at_k_figure,
    stages_figure,
    traces_figure,
    within_figure,
)

CURVES = [
    dict(run=run, seed=seed, step=step, accuracy=step / 10 + seed, tokens=5.0 * step)
    for run in ("a", "b")
    for seed in (0, 1)
    for step in (2, 1)
]


def test_a_run_has_one_colour_a_line_for_each_seed_and_one_name():
    figure = curves_figure(CURVES, {"accuracy": "accuracy (share)", "tokens": "length (tokens)"}, "t")
    assert len(figure.data) == 8 and sum(trace.showlegend for trace in figure.data) == 2
    first = figure.data[0]
    assert (first.x, first.y) == ((1, 2), (0.1, 0.2)) and figure.data[1].y == (5.0, 10.0)
    assert len({trace.line.color for trace in figure.data if trace.name == "a"}) == 1
    assert figure.layout.yaxis2.title.text == "length (tokens)" and figure.layout.xaxis.title.text


def test_stages_stand_side_by_side_with_their_intervals():
    rows = [
        dict(family=f, stage=s, value=0.5, low=0.4, high=0.7)
        for f in ("x", "y")
        for s in ("base", "RL", "RL")
    ]
    figure = stages_figure(rows, "t")
    assert figure.layout.xaxis.ticktext == ("base", "RL") and "accuracy" in figure.layout.yaxis.title.text
    assert len(set(figure.data[0].x) | set(figure.data[1].x)) == 6
    assert figure.data[0].error_y.array[0] == pytest.approx(0.2)
    assert figure.data[0].error_y.arrayminus[0] == pytest.approx(0.1)


def test_pass_at_k_is_sorted_on_a_logarithmic_axis():
    rows = [dict(policy="p", k=k, value=k / 10, low=0.0, high=1.0) for k in (8, 1, 2)]
    (line,) = pass_at_k_figure(rows, "t").data
    assert line.x == (1, 2, 8) and line.y == (0.1, 0.2, 0.8)
    assert pass_at_k_figure(rows, "t").layout.xaxis.type == "log"


def test_accuracy_within_a_cap_has_a_line_a_seed_and_a_name_a_policy():
    rows = [
        dict(policy=p, seed=s, tokens=n, value=n / 100 + s / 10, low=0.0, high=1.0)
        for p in ("base", "after")
        for s in (0, 1)
        for n in (80, 8)
    ]
    figure = within_figure(rows, "t")
    assert [(t.name, t.showlegend) for t in figure.data] == [
        ("base", True), ("base", False), ("after", True), ("after", False),
    ]  # fmt: skip
    assert figure.data[1].x == (8, 80) and figure.data[1].y == pytest.approx((0.18, 0.9))
    assert figure.data[0].line.color == figure.data[1].line.color != figure.data[2].line.color
    assert "tokens" in figure.layout.xaxis.title.text and figure.layout.xaxis.ticktext == (8, 80)


def test_measured_lengths_are_bars_and_a_law_is_a_dashed_line():
    rows = [dict(series=s, tokens=n, share=0.5, is_law=s == "law") for s in ("law", "seen") for n in (3, 2)]
    law, seen = lengths_figure(rows, "t").data
    assert (law.type, law.line.dash, law.x) == ("scatter", "dash", (2, 3)) and seen.type == "bar"


def test_markers_of_a_text_are_shown_and_not_read_as_html():
    rows = [dict(problem=i, question=f"q{i}", policy="p", text="<think> 1", is_right=i == 1) for i in (0, 1)]
    (table,) = traces_figure(rows, 1).data
    assert table.cells["values"][1] == ["&lt;think&gt; 1"] and table.cells["values"][2] == ["right"]
    assert table.header["values"][1] == "answer to: q1"
