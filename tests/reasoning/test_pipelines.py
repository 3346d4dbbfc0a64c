"""Pipelines on small tasks: they reach what they are for, and a killed one ends with the same weights."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.pipelines import (
    ZERO,
    base,
    mixed_languages,
    r1,
    r1_zero,
    rejection_sampled,
    specialist,
)
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rewards import is_right, language_share
from workbench.reasoning.tasks import Division, ModularChain, Problem, draw_problems, leaked
from workbench.reasoning.vocabulary import VOCABULARY

EASY = ModularChain(modulus=3, operations=2, levels=(1, 2))
SHORT = replace(ZERO, max_new_tokens=16)
SMALL = replace(ZERO, questions=4, group_size=4, max_new_tokens=12)


def small_policy(seed: int = 0):
    return new_policy(seed, policy_config(hidden_size=32, moe_intermediate_size=16))


def run(policy, stop_after: int | None = None, **more) -> list[dict]:
    rows = []
    settings = dict(
        cold_steps=3, rl_steps=2, sft_steps=2, final_steps=2, n_cold=30, n_sampled=40, recipe=SMALL
    )
    for row in r1(policy, EASY, **settings | more):
        rows.append(row)
        if len(rows) == stop_after:
            break
    return rows


@pytest.fixture(scope="module")
def taught():
    """A policy that knows a little: enough for rejection sampling to find something."""
    policy = small_policy()
    for _ in base(policy, [EASY], 60, tilt_steps=0, chinese=0.5):
        pass
    return policy.state_dict()


def test_a_killed_r1_ends_where_an_unbroken_one_does(taught, tmp_path):
    whole = small_policy()
    whole.load_state_dict(taught)
    rows = run(whole, folder=tmp_path / "whole")
    assert [row["stage"] for row in rows] == (
        ["1 cold start"] * 3 + ["2 RL"] * 2 + ["3 own answers"] * 2 + ["4 RL"] * 2
    )
    for stop in (2, 5, 8):  # in each kind of stage; a step after the last checkpoint is done again
        cut = small_policy()
        cut.load_state_dict(taught)
        run(cut, stop, folder=tmp_path / f"cut{stop}")
        again = small_policy()
        again.load_state_dict(taught)
        run(again, folder=tmp_path / f"cut{stop}")
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), (stop, name)


def test_rejection_sampling_keeps_right_answers_in_one_language(taught):
    policy = small_policy()
    policy.load_state_dict(taught)
    problems = draw_problems(EASY, 40, 3)
    by_prompt = {problem.question: problem for problem in problems}
    for document in rejection_sampled(policy, problems, SMALL):
        question = VOCABULARY.decode(document.ids[1 : document.prompt_tokens - 1])
        answer = document.ids[document.prompt_tokens :]
        assert is_right(by_prompt[question], answer) and language_share(VOCABULARY.decode(answer)) == 1
    hopeless = [Problem(ModularChain(), 5, "chain 1 + 1 + 1 + 1 + 1 + 1")]
    with pytest.raises(ValueError, match="train the policy further"):
        rejection_sampled(small_policy(1), hopeless, SMALL)


def test_specialist_and_zero_go_through_their_stages(taught):
    policy = small_policy()
    policy.load_state_dict(taught)
    stages = [row["stage"] for row in specialist(policy, EASY, 2, 2, recipe=SMALL)]
    assert stages == ["skills"] * 2 + ["tilt"] * 20 + ["RL"] * 2
    assert [row["step"] for row in r1_zero(policy, [EASY], 2, recipe=SMALL)] == [1, 2]


def test_a_base_is_tilted_by_the_solutions_that_it_is_told(monkeypatch):
    """The first stage shows patient searches, the second hasty ones; both keep to the training side."""
    seen = []
    monkeypatch.setattr(
        "workbench.reasoning.pipelines.fine_tune",
        lambda policy, documents, steps, **how: seen.append((documents, how)) or [{"step": steps}],
    )
    patient, hasty = Division(levels=(16,)), Division(levels=(16,), haste=0.6)
    how = dict(rows=5, thinking=1.0, tilted_thinking=1.0, tilt_rate=0.5, tilted_families=[hasty])
    stages = [row["stage"] for row in base(small_policy(), [patient], 2, **how)]
    assert stages == ["skills", "tilt"] and [own["rows"] for _, own in seen] == [5, 5]
    assert "rate" not in seen[0][1] and seen[1][1]["rate"] == 0.5
    shares, held_out = [], draw_problems(patient, 42, 1, is_held_out=True, are_different=True)
    for documents, _ in seen:
        texts = [VOCABULARY.decode(document.ids) for document in documents]
        assert not leaked(texts, held_out)
        shares.append(np.mean([text.split()[-4] == "!" for text in texts]))
    assert shares[0] == 1 and 0.2 < shares[1] < 0.5


def test_languages_are_mixed_as_told():
    text = "= 1 = 2 ; 13"
    assert mixed_languages(text, random.Random(0), 1.0) == "= 一 = 二 ; 13"
    assert mixed_languages(text, random.Random(0), 0.0) == text


@pytest.mark.slow
def test_reinforcement_turns_a_policy_that_can_into_one_that_does():
    """Chains modulo 3, from a base that rarely thinks to nearly every answer right; reward_study has more."""
    family, seed = ModularChain(modulus=3, operations=3, levels=(2, 3)), 0
    policy = new_policy(seed)
    for _ in base(policy, [family], 250, seed=seed):
        pass
    held_out = draw_problems(family, 80, 1, is_held_out=True)
    before = evaluate(policy, held_out, answers=4, max_new_tokens=16)
    for _ in r1_zero(policy, [family], 40, recipe=SHORT, seed=seed):
        pass
    after = evaluate(policy, held_out, answers=4, max_new_tokens=16)
    assert before.accuracy.value < 0.75 and after.accuracy.value > 0.9
    assert after.accuracy.low > before.accuracy.high
