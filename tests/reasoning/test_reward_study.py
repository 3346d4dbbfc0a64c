"""What the recorded study of reward holds: every run, and gains that exclude no change."""

import pytest

from workbench.reasoning.reward_study import SEEDS, TRIALS, read_study


def test_every_family_and_seed_is_there_with_a_base_of_its_own():
    rows = read_study()
    assert sorted((row["family"], row["seed"]) for row in rows) == sorted(
        (f, s) for f in TRIALS for s in SEEDS
    )
    for family, trial in TRIALS.items():
        mine = [row for row in rows if row["family"] == family]
        assert len({row["before"]["accuracy"][0] for row in mine}) == len(SEEDS)
        assert all([step["step"] for step in row["steps"]] == [*range(1, trial.rl_steps + 1)] for row in mine)


def test_the_paired_gain_excludes_no_change_in_every_run():
    for row in read_study():
        before, after = (row[when]["accuracy"] for when in ("before", "after"))
        assert row["gain"][0] == pytest.approx(after[0] - before[0])
        assert 0 < row["gain"][1] < row["gain"][0] and after[1] > before[2]
