"""The study of spikes: its statistics by hand, its runs repeatable, its record whole."""

from itertools import pairwise

import numpy as np
import pytest

from workbench.training.stability_study import (
    STEPS,
    lead,
    progressions,
    read_study,
    rises,
    run,
    setting,
    study_runs,
)


def test_progressions_go_on_by_one_step():
    for document in progressions(50):
        steps = {(b - a) % 64 for a, b in pairwise(document)}
        assert len(steps) == 1 and 12 <= len(document) <= 64


def test_rises_count_only_what_lies_above_the_median():
    losses = [1.0] * 20 + [3.0] + [0.0] * 3
    assert rises(losses, begin=16) == pytest.approx(2.0 / 8)
    assert rises([2.0 - 0.01 * t for t in range(60)], begin=20) == 0.0


def test_a_lead_of_one_step_is_found_and_growth_alone_is_none():
    rng = np.random.default_rng(0)
    outliers, spikes = list(rng.random(400)), [False] * 400
    for t in range(40, 400, 40):
        spikes[t], outliers[t - 1] = True, 2.0
    found = {"is_spike": spikes, "x": outliers}
    assert len(lead(found, "x")) == 9 and min(lead(found, "x")) > 0.3
    assert abs(np.mean(lead(found, "x", ahead=8))) < 0.2
    spikes[41] = True  # follows another: left out
    assert len(lead(found, "x")) == 9
    growing = {"is_spike": spikes, "x": [float(t) for t in range(400)]}
    assert lead(growing, "x") == [0.0] * 9  # every step exceeds all before it, those of spikes too


def test_a_run_is_repeated_to_the_bit_and_ways_start_alike():
    first = run("calm", "as V4", 0, steps=10)
    assert first == run("calm", "as V4", 0, steps=10) and first["ended"] == 10
    assert run("calm", "unclamped", 0, steps=10)["loss"][0] == first["loss"][0]
    hot = run("rate × 40", "as V4", 0, steps=10)["loss"]
    assert hot[0] == first["loss"][0] and hot[1:] != first["loss"][1:]


def test_an_unknown_stress_lists_those_there_are():
    with pytest.raises(ValueError, match=r"setting: got stress 'heat'.*needs one of"):
        setting("heat", "as V4", 0)


def test_the_record_has_every_run():
    study = read_study()
    assert set(study) == set(study_runs()) and len(study) == 75
    for found in study.values():
        assert len(found["loss"]) == found["ended"] <= STEPS and np.isfinite(found["loss"]).all()
