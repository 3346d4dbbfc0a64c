"""A recorded result is found by its settings alone and never read from a damaged file."""

import json
from pathlib import Path

import pytest

from workbench.training.records import Records


def _must_not_run() -> dict[str, float]:
    raise AssertionError("a recorded result was computed again")


def test_a_recorded_result_is_read_and_not_computed_again(tmp_path: Path):
    file = tmp_path / "study.json"
    first = Records(file, "python -m study")
    assert first.get({"arm": "a", "seed": 0}, lambda: {"loss": 0.1 + 0.2}) == {"loss": 0.1 + 0.2}

    again = Records(file, "python -m study")
    # The order in which the settings are named is no part of them.
    assert again.get({"seed": 0, "arm": "a"}, _must_not_run) == {"loss": 0.1 + 0.2}
    assert again.cpu_seconds == first.cpu_seconds
    assert json.loads(file.read_text())["command"] == "python -m study"


def test_other_settings_are_another_result(tmp_path: Path):
    records = Records(tmp_path / "study.json", "python -m study")
    for seed in (1, 0):
        records.get({"seed": seed}, lambda seed=seed: {"loss": float(seed)})
    rows = json.loads((tmp_path / "study.json").read_text())["results"]
    assert [row["result"]["loss"] for row in rows] == [0.0, 1.0]
    assert {"cpu_seconds", "torch", "python", "machine"} <= set(rows[0])


def test_results_are_found_by_the_settings_that_tell_them_apart(tmp_path: Path):
    records = Records(tmp_path / "study.json", "python -m study")
    for arm, seed in (("a", 0), ("a", 1), ("b", 1)):
        records.get({"arm": arm, "seed": seed}, lambda arm=arm, seed=seed: {"loss": f"{arm}{seed}"})
    assert records.by("seed", "arm")[1, "a"] == {"loss": "a1"} and len(records.by("arm", "seed")) == 3
    for names in (("arm",), ("arm", "seed", "width")):
        with pytest.raises(ValueError, match="tell all apart"):
            records.by(*names)


def test_without_keeping_nothing_is_read_or_written(tmp_path: Path):
    file = tmp_path / "study.json"
    Records(file, "python -m study").get({"seed": 0}, lambda: {"loss": 1.0})
    before = file.read_bytes()
    live = Records(file, "python -m study", keeps=False)
    assert live.get({"seed": 0}, lambda: {"loss": 2.0}) == {"loss": 2.0}
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": [{}]}', '{"rows": []}'])
def test_a_damaged_file_is_named_with_what_makes_it_anew(tmp_path: Path, text: str):
    file = tmp_path / "study.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"study\.json is damaged .*python -m study"):
        Records(file, "python -m study")
