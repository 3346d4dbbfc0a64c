"""The recorded study: it goes on where it stopped, its record is whole, and its gaps are per seed."""

import json
import math

import pytest

from workbench.training import fp8_study
from workbench.training.fp8_study import ARITHMETICS, FIRST_SEED, gaps, main, read_study, run_study


def short(path, seeds):
    return run_study(path, seeds, steps=2, n_batches=1)


def test_a_study_broken_off_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(fp8_study, "ARITHMETICS", ("bf16", "fp8_v3"))
    whole, parts = short(tmp_path / "whole.json", 2), short(tmp_path / "parts.json", 1)
    assert len(parts["runs"]) == 2
    parts = short(tmp_path / "parts.json", 2)
    assert [run["seed"] for run in parts["runs"]] == [FIRST_SEED] * 2 + [FIRST_SEED + 1] * 2
    assert [run["loss"] for run in parts["runs"]] == [run["loss"] for run in whole["runs"]]
    assert read_study(tmp_path / "parts.json") == parts
    assert len({run["loss"] for run in whole["runs"]}) == 4
    with pytest.raises(ValueError, match=r"run_study: .*give another --output"):
        run_study(tmp_path / "parts.json", 2, steps=3, n_batches=1)


def test_gaps_are_percent_of_the_bf16_loss_of_the_same_seed():
    losses = {("bf16", 7): 4.0, ("fp8_v3", 7): 4.1, ("bf16", 5): 5.0, ("fp8_v3", 5): 4.9}
    study = {"runs": [dict(arithmetic=a, seed=s, loss=loss) for (a, s), loss in losses.items()]}
    assert gaps(study, "fp8_v3") == pytest.approx([-2.0, 2.5])
    assert gaps(study, "bf16", than="fp8_v3") == pytest.approx([2.0, -2.5])


def test_the_record_in_the_package_is_whole_and_says_how_to_make_it():
    study = read_study()
    seeds = {run["seed"] for run in study["runs"]}
    assert len(seeds) >= 3
    assert seeds == set(range(FIRST_SEED, FIRST_SEED + len(seeds)))
    names = [recipe if isinstance(recipe, str) else recipe.name for recipe in ARITHMETICS]
    assert [(run["seed"], run["arithmetic"]) for run in study["runs"]] == [
        (seed, name) for seed in sorted(seeds) for name in names
    ]
    assert all(1 < run["loss"] < math.log(512) for run in study["runs"])
    assert study["command"].startswith(f"python -m workbench.training.fp8_study --seeds {len(seeds)} ")
    assert study["versions"].keys() == {"python", "torch"}


def test_the_command_takes_its_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fp8_study, "ARITHMETICS", ("bf16",))
    path = tmp_path / "study.json"
    main(["--seeds", "1", "--steps", "1", "--batches", "1", "--output", str(path)])
    assert json.loads(path.read_text())["settings"]["steps"] == 1
    assert "seed 100" in capsys.readouterr().out
