"""What the recorded study of reward holds: every run, gains that exclude no change, no test problem seen."""

import random

import numpy as np
import pytest

from workbench.reasoning.measures import t_interval
from workbench.reasoning.reward_study import ANSWERS, CAPS, SEARCH, TRIALS, read_study
from workbench.reasoning.tasks import draw_problems, leaked


def of(family):
    return [row for row in read_study() if row["family"] == family]


def test_every_family_and_seed_is_there_with_a_base_of_its_own():
    rows = read_study()
    assert sorted((row["family"], row["seed"]) for row in rows) == sorted(
        (name, seed) for name, trial in TRIALS.items() for seed in trial.seeds
    )
    for family, trial in TRIALS.items():
        assert len({row["before"]["tokens"] for row in of(family)}) == len(trial.seeds)
        assert all(
            [step["step"] for step in row["steps"]] == [*range(1, trial.rl_steps + 1)] for row in of(family)
        )


@pytest.mark.parametrize("family", TRIALS)
def test_the_paired_gain_excludes_no_change_in_every_run(family):
    for row in of(family):
        before, after = (row[when]["accuracy"] for when in ("before", "after"))
        assert row["gain"][0] == pytest.approx(after[0] - before[0])
        assert 0 < row["gain"][1] < row["gain"][0] and after[1] > before[2]


def test_what_the_notebook_says_of_seeds_and_of_memory():
    """Over seeds, every gain excludes no change but that of division's first recipe."""
    excludes = {name: t_interval([row["gain"][0] for row in of(name)]).low > 0 for name in TRIALS}
    assert excludes == {"addition": True, "parity": True, "division": False, "division, longer": True}
    assert all(row["after"]["accuracy"][0] > 0.985 for row in of("addition"))
    assert sorted(row["after"]["accuracy"][0] > 0.9 for row in of("division, longer")) == [False, True, True]
    for row in (*of("division"), *of("division, longer")):
        assert row["after"]["training"][0] > 0.98
        assert row["after"]["pass"]["16"][0] >= row["before"]["pass"]["16"][0]


@pytest.mark.parametrize("family", TRIALS)
def test_no_base_and_no_reward_saw_a_test_problem(family):
    trial = TRIALS[family]
    test = draw_problems(trial.family, trial.n_test, 1, is_held_out=True, are_different=True)
    taught = [*trial.teach.keywords["families"], *(trial.teach.keywords.get("tilted_families") or [])]
    for own in (*taught, trial.family):
        texts = [problem.question for seed in (0, 200) for problem in draw_problems(own, 1500, seed)]
        assert not leaked(texts, test) and not leaked(draw_problems(own, 1500, 1), test)


def test_all_held_out_pairs_of_the_search_are_asked():
    pairs = {f"solve {a} {b}" for a in range(2, 17) for b in range(1, 17)}
    rng = random.Random(0)
    assert {SEARCH.draw(rng, 16) for _ in range(5000)} == pairs
    n = TRIALS["division"].n_test
    assert len(draw_problems(SEARCH, n, 1, is_held_out=True, are_different=True)) == n
    with pytest.raises(ValueError, match="ask for fewer"):
        draw_problems(SEARCH, n + 1, 1, is_held_out=True, are_different=True)


def test_pass_at_k_and_accuracy_within_a_cap_agree_with_the_accuracy_and_never_fall():
    for row in read_study():
        for when in ("before", "after"):
            own = row[when]
            assert own["pass"]["1"][0] == pytest.approx(own["accuracy"][0])
            assert own["within"][str(CAPS[-1])][0] == pytest.approx(own["accuracy"][0])
            assert np.all(np.diff([own["pass"][str(k)][0] for k in (1, 2, 4, 8, ANSWERS)]) >= 0)
            assert np.all(np.diff([own["within"][str(cap)][0] for cap in CAPS]) >= 0)
