"""Pictures of spikes say what the records say; a stricter rule marks fewer."""

import pytest

from workbench.plots.stability import differences_figure
from workbench.training.stability_study import read_study
from workbench.widgets.stability import runs_figure, stability_explorer


def marked(figure):
    return {trace.name: len(trace.x) for trace in figure.data if "spike" in (trace.name or "")}


def test_the_figure_marks_the_recorded_spikes():
    study = read_study()
    figure = runs_figure("repeated tokens", "anticipatory", 10, 16, 6.0)
    for way in ("as V4", "anticipatory"):
        found = study["repeated tokens", way, 10]
        assert marked(figure).get(f"{way}, spike", 0) == sum(found["is_spike"])
        assert list(next(t for t in figure.data if t.name == way).y) == found["loss"]


def test_a_stricter_rule_marks_fewer():
    loose, strict = (marked(runs_figure("repeated tokens", "as V4", 10, 16, t)) for t in (2.0, 10.0))
    assert sum(loose.values()) > sum(strict.values())


def test_the_explorer_follows_its_controls():
    explorer = stability_explorer()
    before = explorer.figure.layout.title.text
    explorer._controls["stress"].value = "calm"
    assert explorer.figure.layout.title.text != before


def test_differences_keep_every_seed_and_the_interval():
    row = {"label": "x", "values": [0.1, -0.2], "value": -0.05, "low": -0.4, "high": 0.3}
    seeds, mean = differences_figure([row], "", "").data
    assert list(seeds.x) == [0.1, -0.2]
    assert (mean.error_x.array[0], mean.error_x.arrayminus[0]) == pytest.approx((0.35, 0.35))
