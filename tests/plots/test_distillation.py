"""The pictures of distillation: what is drawn where."""

from typing import Any

import pytest

from workbench.plots.distillation import (
    covering_plot,
    domains_figure,
    learning_figure,
    noise_figure,
    students_figure,
)


def test_noise_has_a_panel_a_distance_and_a_line_a_peak() -> None:
    rows = [
        {
            "vocabulary": v, "peak": p, "distance": d,
            "noise": 2.0 * v, "noise_low": 1.5 * v, "noise_high": 4 * v,
        }
        for v in (1000, 100)
        for p in (0.5, 2.0)
        for d in (0.1, 1.0)
    ]  # fmt: skip
    figure = noise_figure(rows)
    assert [note.text for note in figure.layout.annotations] == ["teacher 0.1 away", "teacher 1 away"]
    assert len(figure.data) == 4 and sum(line.showlegend for line in figure.data) == 2
    line = figure.data[0]
    assert list(line.x) == [100, 1000] and list(line.y) == [200, 2000]
    assert list(line.error_y.array) == [200, 2000] and list(line.error_y.arrayminus) == [50, 500]


def learning_rows() -> list[dict[str, Any]]:
    return [
        {"method": "m", "seed": s, "step": t, "teacher_tokens": 1000 * t, "flop": 2e9 * t, "accuracy": a}
        for s, t, a in [(0, 2, 0.5), (0, 1, 0.1), (1, 1, 0.3), (1, 2, 0.7)]
    ]


def test_learning_draws_each_seed_thin_and_their_mean_thick() -> None:
    figure = learning_figure(learning_rows(), "t")
    tokens = [line for line in figure.data if line.xaxis == "x"]
    work = [line for line in figure.data if line.xaxis == "x2"]
    assert [line.line.width for line in tokens] == [1, 1, 3]
    assert list(tokens[0].y) == [0.1, 0.5]
    assert list(tokens[2].x) == [1, 2] and list(work[2].x) == [2, 4]
    assert list(tokens[2].y) == pytest.approx([0.2, 0.6])
    assert sum(line.showlegend for line in figure.data) == 1


def test_domains_put_methods_beside_each_other_under_their_teachers_line() -> None:
    rows = [
        {"domain": d, "method": m, "value": v, "low": v - 0.1, "high": v + 0.05}
        for d in ("a", "b")
        for m, v in (("teachers", 0.9), ("base", 0.2), ("x", 0.6))
    ]
    figure = domains_figure(rows, "t")
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [list(line.y) for line in lines] == [[0.9, 0.9], [0.9, 0.9]]
    base, other = [trace for trace in figure.data if trace.mode == "markers"]
    assert list(base.x) != list(other.x) and all(abs(x - d) < 0.42 for d, x in enumerate(other.x))
    assert list(other.error_y.array) == pytest.approx([0.05, 0.05])
    assert list(other.error_y.arrayminus) == pytest.approx([0.1, 0.1])
    assert list(figure.layout.xaxis.ticktext) == ["a", "b"]


def test_covering_draws_the_teacher_as_bars_and_students_as_lines() -> None:
    rows = [{"who": w, "word": i, "p": 0.5} for w in ("teacher", "forward KL") for i in (0, 1)]
    figure = covering_plot(rows, "t")
    assert [trace.type for trace in figure.data] == ["bar", "scatter"]
    assert figure.layout.xaxis.title.text == "word (number)"


def test_students_lie_at_their_size_and_the_line_joins_the_dense_ones() -> None:
    rows = [
        {"student": s, "way": w, "seed": seed, "active": n, "is_dense": s != "V4", "value": v + 0.1 * seed}
        for s, n, v in (("b", 200, 0.4), ("a", 100, 0.2), ("V4", 150, 0.5))
        for w in ("before", "texts")
        for seed in (0, 1)
    ]
    figure = students_figure(rows, 0.9, "t")
    line, dense, experts, *_, goal = figure.data
    assert list(line.x) == [100, 200] and list(line.y) == pytest.approx([0.25, 0.45])
    assert sorted(dense.y) == pytest.approx([0.2, 0.3, 0.4, 0.5]) and list(experts.x) == [150, 150]
    assert list(goal.y) == [0.9, 0.9] and list(goal.x) == [100, 200]
    assert [trace.name for trace in figure.data if trace.showlegend is not False].count("dense") == 1
