"""The pictures of pre-training: means, bands and bounds are those of the rows."""

from workbench.plots.pretraining import STAGE_PANELS, bands_figure, heads_figure, stages_figure


def rows():
    return [
        {"name": name, "seed": seed, "x": x, "y": 10 * seed + x, "bound": 50 + x if name == "a" else None}
        for name in ("a", "b")
        for x in (2, 1)
        for seed in (0, 1, 2)
    ]


def test_a_band_holds_every_seed_and_the_line_their_mean():
    figure = bands_figure(rows(), "T", "x (u)", "y (v)", log_x=True)
    band, line, bound = figure.data[:3]
    assert list(band.x) == [1, 2, 2, 1] and list(band.y) == [21, 22, 2, 1]
    assert (line.name, list(line.x), list(line.y)) == ("a", [1, 2], [11, 12])
    assert list(bound.y) == [51, 52] and bound.line.dash == "dash"
    assert [trace.name for trace in figure.data if trace.name] == ["a", "a: bound", "b"]
    assert list(figure.layout.xaxis.tickvals) == [1, 2] and figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.title.text == "x (u)"
    assert figure.layout.yaxis.title.text == "y (v)" and figure.layout.title.text == "T"


def test_a_bound_that_is_not_there_is_not_drawn():
    figure = bands_figure([r for r in rows() if r["name"] == "b"], "T", "x", "y")
    assert [trace.name for trace in figure.data] == [None, "b"]


def test_stages_have_a_panel_a_measure_and_leave_the_start_out():
    numbers = {"loss_256": 2.0, "recall": 0.5}
    after = [
        {"way": way, "seed": seed, "step": step, "loss_64": 3 + seed, **numbers}
        for way in ("one", "two")
        for seed in (0, 1)
        for step in (0, 60, 90)
    ]
    figure = stages_figure(after, "T")
    means = [trace for trace in figure.data if trace.name]
    assert len(means) == 2 * len(STAGE_PANELS) and sum(t.showlegend for t in means) == 2
    assert list(means[0].x) == [60, 90] and list(means[0].y) == [3.5, 3.5]
    assert [figure.layout[f"yaxis{i}"].title.text for i in ("", 2, 3)] == list(STAGE_PANELS.values())


def test_heads_stand_in_their_layer():
    figure = heads_figure([{"layer": "one", "seed": 0, "value": 0.9}], "T", 0.1)
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([0.9], ["one"])
    assert "share" in figure.layout.xaxis.title.text and figure.layout.shapes[0].x0 == 0.1
