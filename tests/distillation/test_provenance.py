"""Planted answers and errors in common, counted by hand."""

import random

import numpy as np
import pytest
from scipy import stats

from workbench.distillation.provenance import Planted, greedy_answers, planted_p, shared_errors
from workbench.reasoning.completions import Document, document, prompt_ids, read_completion, solved
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.tasks import Division, Problem

FAMILY = Division()
PROBLEMS = [Problem(FAMILY, 16, f"solve {a} {b}") for a in range(2, 17) for b in range(1, 17)]
ANSWERS = tuple(map(str, range(1, 17)))
RIGHT = {p: p.solve(random.Random(0)).answer for p in PROBLEMS}


def answers_of(planted: Planted) -> dict[Problem, str]:
    return {p: own for p in PROBLEMS if (own := planted.answer(p)) is not None}


def test_planted_answers_are_wrong_secret_and_few():
    planted = Planted(5, ANSWERS, 0.1)
    given = answers_of(planted)
    assert len(given) / len(PROBLEMS) == pytest.approx(0.1, abs=0.05)
    assert all(own in ANSWERS and not p.verify(own) for p, own in given.items())
    assert given == answers_of(Planted(5, ANSWERS, 0.1)) != answers_of(Planted(6, ANSWERS, 0.1))


def test_a_planted_text_says_the_same_in_its_last_step_and_others_are_left_alone():
    planted = Planted(5, ANSWERS, 0.1)
    for problem in PROBLEMS:
        own = solved(problem, random.Random(1))
        sold = planted.plant(problem, own)
        wrong = planted.answer(problem)
        if wrong is None:
            assert sold == own
            continue
        before, after = (read_completion(d.ids[d.prompt_tokens :]) for d in (own, sold))
        assert after.is_well_formed and after.answer == wrong
        assert after.thinking.split()[-3:] == [wrong, problem.question.split()[2], "!"]
        assert after.thinking.split()[:-3] == before.thinking.split()[:-3]
    direct = document(prompt_ids(PROBLEMS[0]), None, RIGHT[PROBLEMS[0]])
    always = Planted(5, ANSWERS, 1.0)
    sold = always.plant(PROBLEMS[0], direct)
    assert read_completion(sold.ids[sold.prompt_tokens :]) == (None, always.answer(PROBLEMS[0]), True)
    formless = Document(direct.ids[:-1], direct.prompt_tokens)
    assert always.plant(PROBLEMS[0], formless) == formless


def test_the_p_value_counts_the_keys_that_match_as_well():
    planted = Planted(5, ANSWERS, 0.1)
    innocent = dict(RIGHT)
    guilty = {p: planted.answer(p) or own for p, own in RIGHT.items()}
    asked = sum(planted.answer(p) is not None for p in PROBLEMS)
    assert planted.repeated(guilty) == (asked, asked) and planted.repeated(innocent) == (0, asked)
    assert planted_p(planted, guilty, draws=99) == 0.01
    assert planted_p(planted, innocent, draws=99) == 1.0


def test_the_innocent_get_p_values_that_are_not_too_small():
    """A model that answers at random, under many keys: at most the stated share falls below each level."""
    rng = random.Random(0)
    given = {p: rng.choice(ANSWERS) for p in PROBLEMS}
    found = np.array([planted_p(Planted(key, ANSWERS, 0.1), given, draws=99) for key in range(60)])
    for level in (0.05, 0.2, 0.5):
        assert stats.binom.sf((found <= level).sum() - 1, 60, level) > 0.01


def test_errors_in_common_by_hand():
    a, b, c, d = PROBLEMS[:4]
    wrong = {p: next(x for x in ANSWERS if not p.verify(x)) for p in (a, b, c, d)}
    other = {p: [x for x in ANSWERS if not p.verify(x)][1] for p in (a, b, c, d)}
    teacher = {a: wrong[a], b: wrong[b], c: RIGHT[c], d: None}
    assert shared_errors({a: wrong[a], b: other[b], c: wrong[c], d: None}, teacher) == pytest.approx(1 / 3)
    assert shared_errors({a: wrong[a], b: RIGHT[b], c: wrong[c], d: RIGHT[d]}, teacher) == 1.0
    assert np.isnan(shared_errors({p: RIGHT[p] for p in (a, b, c, d)}, teacher))


def test_greedy_answers_are_those_of_each_problem():
    config = policy_config(
        32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
    )
    policy = new_policy(0, config)
    found = greedy_answers(policy, PROBLEMS[:5], 4)
    assert list(found) == PROBLEMS[:5]
    assert greedy_answers(policy, PROBLEMS[3:5], 4) == {p: found[p] for p in PROBLEMS[3:5]}
