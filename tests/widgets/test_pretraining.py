"""The explorer of two variants draws what is recorded."""

import time

import pytest

from workbench.training.studies.record import SEEDS, read_study
from workbench.widgets.pretraining import CURVES, pair_figure, pretraining_explorer


@pytest.mark.parametrize("what", CURVES)
def test_every_seed_of_both_and_their_differences_are_drawn(what):
    figure, study = pair_figure("no window", "base", what), read_study("text")
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [line.name for line in lines] == ["no window"] * len(SEEDS) + ["base"] * len(SEEDS)
    for line, seed in zip(lines, SEEDS, strict=False):
        found = study["no window", seed]
        field = CURVES[what]
        recorded = [p["loss"] for p in found[field]] if field == "held_out" else found[field]
        assert list(line.y) == recorded
        assert line.x[-1] == pytest.approx(found["tokens"] / 1e3)
    seeds = next(trace for trace in figure.data if trace.name == "a seed")
    assert list(seeds.y) == pytest.approx(
        [study["no window", s]["held_out_loss"] - study["base", s]["held_out_loss"] for s in SEEDS]
    )


def test_the_explorer_follows_its_controls_quickly():
    explorer = pretraining_explorer()
    begun = time.process_time()
    explorer._controls["against"].value = "dense"
    assert explorer.figure.layout.title.text == "plain residual beside dense"
    assert time.process_time() - begun < 0.2
