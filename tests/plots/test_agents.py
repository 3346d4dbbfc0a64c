import pytest

from workbench.plots.agents import (
    frontier_figure,
    kept_figure,
    replay_figure,
    starts_figure,
    thinking_figure,
    tool_figure,
    transcript_figure,
)

FRONTIER = [
    dict(effort=e, seed=s, tokens=n + s, accuracy=a, low=a - 0.1, high=a + 0.05)
    for s in (0, 1)
    for e, n, a in (("low", 3.0, 0.3), ("high", 8.0, 0.8), ("max", 12.0, 0.9))
] + [dict(effort="blind mixing", seed=0, tokens=n, accuracy=a) for n, a in ((12.0, 0.9), (3.0, 0.2))]


def test_efforts_have_a_colour_seeds_a_marker_and_mixing_a_line():
    figure = frontier_figure(FRONTIER)
    mixing, *efforts = figure.data
    assert mixing.x == (3.0, 12.0) and mixing.mode == "lines"
    assert [trace.name for trace in efforts] == ["low", "high", "max"]
    assert len({trace.marker.color for trace in efforts}) == 3 and len(set(efforts[0].marker.symbol)) == 2
    assert efforts[0].error_y.arrayminus[0] == pytest.approx(0.1)
    assert "tokens" in figure.layout.xaxis.title.text and "accuracy" in figure.layout.yaxis.title.text


def test_the_line_of_equal_worth_touches_the_best_and_lies_above_the_rest():
    """At 0.05 a token: low .15, high .4, max .3."""
    line = frontier_figure(FRONTIER, price=0.05).data[-1]
    slope = (line.y[1] - line.y[0]) / (line.x[1] - line.x[0])
    assert slope == pytest.approx(0.05) and line.y[0] == pytest.approx(0.4)


def test_thinking_has_a_line_an_effort_and_seed():
    rows = [dict(effort="low", seed=s, level=n, thinks=n / 4) for s in (0, 1) for n in (2, 1)]
    figure = thinking_figure(rows)
    assert [trace.x for trace in figure.data] == [(1, 2), (1, 2)]
    assert [trace.showlegend for trace in figure.data] == [True, False]


def test_the_tools_panels_show_every_seed_beside_the_others():
    rows = [
        dict(setting=s, seed=seed, digits=d, accuracy=0.5, low=0.4, high=0.7, calls=0.25)
        for s in ("no tool", "tool, shown")
        for seed in (0, 1)
        for d in (1, 4)
    ]
    figure = tool_figure(rows)
    accuracy = [trace for trace in figure.data if trace.xaxis == "x"]
    assert len({x for trace in accuracy for x in trace.x}) == 8
    assert [trace.name for trace in figure.data if trace.xaxis == "x2"] == ["tool, shown"]
    assert figure.layout.xaxis.ticktext == (1, 4)


def test_kept_reasoning_is_stacked_on_the_rest():
    rows = [
        dict(conversation=c, request=i, reasoning_tokens=5 * i, dropped_tokens=2, other_tokens=9)
        for c in "ab"
        for i in (0, 1)
    ]
    figure = kept_figure(rows)
    assert figure.layout.barmode == "stack" and figure.data[1].y == (0, 5) and figure.data[0].x == (1, 2)


def test_starts_are_in_milliseconds_on_logarithmic_axes():
    rows = [dict(how=h, image_bytes=2**21, start_s=0.003) for h in ("copied whole", "on demand")]
    figure = starts_figure(rows)
    assert figure.data[0].x == (2,) and figure.data[0].y == (3.0,) and figure.layout.yaxis.type == "log"


def test_a_replay_shows_work_and_effects_apart():
    rows = [dict(cut_bytes=c, executed=5 - c, effects=3, without_log=3 + c) for c in (0, 1)]
    assert [trace.y for trace in replay_figure(rows).data] == [(5, 4), (3, 3), (3, 4)]


def test_a_transcript_ends_at_its_turn_and_reads_no_html():
    rows = [dict(talk=t, turn=n, who="tool", text="<｜a▁b>\n&", tokens=n) for t in (0, 1) for n in (1, 2, 3)]
    figure = transcript_figure(rows, 1, 2)
    (table,) = figure.data
    assert (
        table.cells["values"][1] == ["&lt;|a_b&gt;<br>&amp;"] * 2 and "3 tokens" in figure.layout.title.text
    )
