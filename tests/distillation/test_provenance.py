"""Planted answers and errors in common, counted by hand; the recorded studies hold what they should."""

import copy
import random

import numpy as np
import pytest
from scipy import stats

from workbench.distillation import extraction_study, provenance_study
from workbench.distillation.provenance import Planted, greedy_answers, planted_p, shared_errors
from workbench.reasoning.completions import document, prompt_ids, read_completion, solved
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
    bad = document(prompt_ids(PROBLEMS[0]), None, "1")
    assert Planted(5, ANSWERS, 1.0).plant(PROBLEMS[0], bad) == bad


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


@pytest.fixture(scope="module")
def small(monkeypatch_module):
    """The study at the size of seconds."""
    study = provenance_study
    config = policy_config(
        32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
    )
    for name, value in {"TEXTS": 30, "ASKED": 12, "MOST_TOKENS": 8, "CHANCE_KEYS": 20}.items():
        monkeypatch_module.setattr(study, name, value)
    monkeypatch_module.setattr(study, "teacher", lambda seed=0: new_policy(seed, config).eval())
    monkeypatch_module.setattr(study, "base", lambda: new_policy(7, config))
    for cached in (study.asked, study.sold, study.teacher_answers):
        cached.cache_clear()
    yield study
    for cached in (study.asked, study.sold, study.teacher_answers):
        cached.cache_clear()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_diets_hold_the_share_of_marked_texts(small):
    clean, marked = (small.as_documents(small.sold(0, delta)) for delta in (0.0, 4.0))
    for diet, share in (("all marked, δ 4", 1.0), ("a quarter marked, δ 4", 0.25), ("unmarked", 0.0)):
        own = small.reading(diet, 20)
        planted = [small.PLANTED.plant(p, d) for p, d in zip(small.asked(), marked, strict=True)]
        is_marked = [text != c for text, c in zip(own, clean, strict=True)]
        assert sum(is_marked) == pytest.approx(share * 30, abs=1)
        assert all(t in (c, m) for t, c, m in zip(own, clean, planted, strict=True))
    assert len(small.reading("textbook", 20)) == 30
    assert small.reading("another teacher", 20) == small.as_documents(small.sold(1, 0.0))
    with pytest.raises(ValueError, match="choose among those"):
        small.reading("all", 20)


def test_a_student_is_put_to_every_test(small):
    before = copy.deepcopy(small.base().state_dict())
    found = small.run("all marked, δ 4", 20, steps=2)
    assert all((own == before[name]).all() for name, own in small.base().state_dict().items())
    for name in ("plain", "distinct", "control", "expected"):
        assert 0 < found["watermark"][name]["p"] <= 1 and len(found["watermark"][name]["chance"]) == 20
    assert 0 <= found["planted"]["repeated"] <= found["planted"]["of"] and "excess" in found


def test_the_interface_is_measured_with_and_without_planted_answers(small):
    found = small.run_interface(0.0)
    assert found["planted"] <= found["accuracy"] and found["tokens"] <= 8


def test_extraction_records_what_was_asked_and_paid(monkeypatch):
    config = policy_config(
        32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
    )
    own = extraction_study.Scene(new_policy(0, config), new_policy(1, config))
    found = extraction_study.run(own, "covering", "answer only", 9, 3, steps=2, n_test=3)
    assert set(found["accuracy"]) == {f.name for f in extraction_study.FAMILIES}
    assert found["shown_tokens"] <= found["written_tokens"] and found["prompt_tokens"] > 0
    with pytest.raises(ValueError, match="choose among those"):
        extraction_study.run(own, "all", "whole", 9, 3)


def test_the_records_hold_every_student_and_seed():
    extraction, provenance = extraction_study.read_study(), provenance_study.read_study()
    for seed in extraction_study.SEEDS:
        for s in extraction_study.settings():
            assert (s["choice"], s["reply"], s["queries"], seed) in extraction
        for diet in provenance_study.DIETS:
            assert (diet, seed) in provenance
