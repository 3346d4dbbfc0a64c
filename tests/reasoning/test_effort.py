"""Efforts: what a token costs, that prices steer, and what the recorded study holds."""

import pytest

from workbench.reasoning.completions import document, prompt_ids
from workbench.reasoning.effort import EFFORTS, Effort, train_effort, undecided
from workbench.reasoning.effort_study import SEEDS, read_study
from workbench.reasoning.pipelines import ZERO
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.tasks import ModularChain, draw_problems

FAMILY = ModularChain(modulus=3, operations=2, levels=(1, 2))


def test_every_token_costs_its_price():
    problem = draw_problems(FAMILY, 1, 0)[0]
    solution = problem.solve()
    texts = [
        document(prompt_ids(problem), thinking, solution.answer) for thinking in (solution.thinking, None)
    ]
    completions = [text.ids[text.prompt_tokens :] for text in texts]
    extra = len(completions[0]) - len(completions[1])
    for effort in EFFORTS.values():
        rules = effort.applied_to(ZERO).rules
        thought, direct = (rules.score(problem, ids).reward for ids in completions)
        assert direct - thought == pytest.approx(extra * effort.token_price)


def test_a_recipe_takes_the_word_and_the_window():
    recipe = Effort("<low>", 0.5, 7).applied_to(ZERO)
    assert (recipe.system, recipe.max_new_tokens, recipe.rules.max_tokens) == ("<low>", 7, 7)
    assert recipe.rules.form_weight == ZERO.rules.form_weight


def test_a_dear_token_shortens_and_a_resumed_run_is_the_same(tmp_path):
    policy = new_policy(0, policy_config(hidden_size=32, moe_intermediate_size=16))
    list(undecided(policy, FAMILY, 60))
    dear = Effort("<low>", 0.3, 12)
    start = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    rows = list(train_effort(policy, FAMILY, dear, 12, recipe=ZERO, folder=tmp_path))
    assert rows[-1]["tokens"] < 0.85 * rows[0]["tokens"]
    policy.load_state_dict(start)
    assert list(train_effort(policy, FAMILY, dear, 12, recipe=ZERO, folder=tmp_path)) == []


def test_the_study_is_whole():
    rows = read_study()
    assert sorted((row["seed"], row["effort"]) for row in rows) == sorted(
        (seed, name) for seed in SEEDS for name in ("base", *EFFORTS)
    )
    assert all(0 <= row["accuracy"][1] <= row["accuracy"][0] <= row["accuracy"][2] <= 1 for row in rows)
