"""The reinforcement loop: it climbs, resumes to the bit, and its bookkeeping is what the losses need."""

import pytest
import torch

from workbench.model import Sampling
from workbench.reasoning.completions import read_completion
from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.experience import gather
from workbench.reasoning.grpo import Questions, RLRecipe, train_policy
from workbench.reasoning.losses import LOSSES, PolicyLoss, policy_loss
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.recipe import R1_ZERO
from workbench.reasoning.rewards import Rules, is_right, language_share
from workbench.reasoning.scoring import token_logprobs
from workbench.reasoning.tasks import Parity, Problem, draw_problems
from workbench.reasoning.vocabulary import VOCABULARY

FAMILY = Parity(bits=4, levels=(4,))
SMALL = dict(questions=4, group_size=4, max_new_tokens=6)


def begins_well(problem: Problem, ids: list[int]) -> bool:
    """A reward that a fresh policy can earn: the first word is among the first tenth of the vocabulary."""
    return ids[0] < 16


def small_policy(seed: int = 0):
    return new_policy(seed, policy_config(hidden_size=32, moe_intermediate_size=16))


def run(policy, recipe: RLRecipe, steps: int, **more) -> list[dict]:
    return list(train_policy(policy, Questions([FAMILY], seed=1), recipe, steps, **more))


@pytest.mark.parametrize("name", ["GRPO", "Dr. GRPO", "DAPO", "CISPO", "V3.2"])
def test_reward_rises_under_each_loss(name):
    loss = LOSSES[name].replace(masks_truncated=False)  # nothing ends within 6 words here
    recipe = RLRecipe(loss=loss, rules=Rules(verifier=begins_well), rate=2e-2, **{**SMALL, "group_size": 48})
    rows = run(small_policy(), recipe, 12)
    assert rows[0]["reward"] < 0.2 and rows[-1]["reward"] > 0.7
    assert {"entropy", "dead", "truncated", "clipped", "grad_norm"} <= rows[0].keys()


@pytest.mark.parametrize(("loss", "optimizer"), [("GRPO", "adamw"), ("R1", "adamw"), ("DAPO", "muon")])
def test_resumed_is_the_same_run_to_the_bit(loss, optimizer, tmp_path):
    recipe = RLRecipe(
        loss=LOSSES[loss].replace(masks_truncated=False),
        rules=Rules(verifier=begins_well),
        optimizer=optimizer,
        renew_reference=3,
        **SMALL,
    )
    whole, cut = small_policy(), small_policy()
    rows = run(whole, recipe, 6)
    run(cut, recipe, 4, folder=tmp_path, checkpoint_every=2)
    fresh = small_policy(9)  # what it starts from does not matter: the checkpoint holds all
    resumed = run(fresh, recipe, 6, folder=tmp_path, checkpoint_every=2)
    assert [row["step"] for row in resumed] == [5, 6]
    assert [row["reward"] for row in resumed] == [row["reward"] for row in rows[4:]]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name
    with pytest.raises(ValueError, match="of another run"):
        run(small_policy(), RLRecipe(loss=LOSSES["GSPO"], **SMALL), 7, folder=tmp_path)


def test_muon_turns_matrices_and_leaves_the_embedding_to_adamw():
    """Every singular value of a matrix's first update is alike; AdamW moves each number alike."""
    recipe = RLRecipe(
        loss=PolicyLoss(average="token"),
        rules=Rules(verifier=begins_well),
        optimizer="muon",
        rate=1e-3,
        warmup_steps=0,
        **SMALL,
    )
    policy = small_policy()
    before = {name: tensor.clone() for name, tensor in policy.named_parameters()}
    run(policy, recipe, 1)
    moved = {name: (tensor - before[name]).detach() for name, tensor in policy.named_parameters()}
    matrix = next(own for name, own in moved.items() if name.endswith("kv_proj.weight"))
    head = moved["lm_head.weight"]
    values = torch.linalg.svdvals(matrix)
    assert values.max() < 2 * values[: len(values) // 2].min()
    assert (head.abs().max() - 1e-3).abs() < 2e-4


def test_answers_without_advantage_may_be_left_out(monkeypatch):
    """The step's gradient is that of the whole batch, computed in one go from the equations."""
    recipe = RLRecipe(
        rules=Rules(verifier=begins_well), loss=PolicyLoss(average="token"), clip_norm=1e9, **SMALL
    )
    policy = small_policy()
    drawn = gather(policy, Questions([FAMILY], 1).take(4), recipe, seed=1 * 1_000_003)
    assert bool((drawn.advantage == 0).any()) and bool((drawn.advantage != 0).any())
    scored = token_logprobs(policy, drawn.rollouts)
    value, _ = policy_loss(
        scored.logprobs, scored.logprobs.detach(), drawn.advantage, scored.mask, recipe.loss
    )
    value.backward()
    expected = torch.stack([p.grad.norm() for p in policy.parameters() if p.grad is not None]).norm()
    (row,) = run(small_policy(), recipe, 1)
    assert row["grad_norm"] == pytest.approx(float(expected), rel=1e-4)


def test_dynamic_sampling_draws_until_groups_disagree():
    recipe = RLRecipe(rules=Rules(verifier=begins_well), most_draws=5, **SMALL)
    row = run(small_policy(), recipe, 1)[0]
    assert row["draws"] > 1 and row["dead"] > 0


def test_r1_zeros_preset_is_what_the_paper_says():
    """512 answers an update, 8,192 a rollout; accuracy and form weigh the same; T = 1; a new reference every
    400 updates, and the recipe counts rollouts."""
    answers = R1_ZERO.questions * R1_ZERO.group_size
    assert (answers, answers // R1_ZERO.minibatches) == (8192, 512)
    assert (R1_ZERO.rate, R1_ZERO.loss.kl_weight, R1_ZERO.loss.clip_high) == (3e-6, 0.001, 10.0)
    assert (R1_ZERO.sampling.temperature, R1_ZERO.rules.form_weight) == (1.0, 1.0)
    assert R1_ZERO.renew_reference * R1_ZERO.minibatches == 400


def test_a_step_without_any_difference_changes_nothing():
    policy, before = small_policy(), small_policy()
    row = run(policy, RLRecipe(rules=Rules(verifier=lambda problem, ids: False), **SMALL), 1)[0]
    assert row["dead"] == 1 and row["reward"] == 0
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), before.parameters(), strict=True))


def test_several_updates_a_batch_clip_and_measure_against_the_old_policy():
    recipe = RLRecipe(
        rules=Rules(verifier=begins_well),
        minibatches=4,
        rate=2e-2,
        loss=PolicyLoss(clip_low=0.01, clip_high=0.01),
        **{**SMALL, "group_size": 32},
    )
    assert run(small_policy(), recipe, 2)[1]["clipped"] > 0
    assert run(small_policy(), RLRecipe(rules=Rules(verifier=begins_well), **SMALL), 2)[1]["clipped"] == 0


def test_routing_replay_and_filtered_sampling_run_through_training():
    recipe = RLRecipe(
        rules=Rules(verifier=begins_well),
        keep_routes=True,
        old="sampler",
        sampling=Sampling(1.0, top_p=0.9),
        minibatches=2,
        loss=LOSSES["V3.2"],
        **SMALL,
    )
    rows = run(small_policy(), recipe, 2)
    assert all(row["grad_norm"] == row["grad_norm"] and row["kl"] >= 0 for row in rows)


ANSWERS = {
    "<think> 1 0 </think> 1 <end>": (True, "1", "1 0"),
    "</think> 1 <end>": (True, "1", None),
    "1 <end>": (False, None, None),
    "<think> 1 0": (False, None, "1 0"),
    "<think> 1 </think> 0 </think> 1 <end>": (False, None, "1 </think> 0 </think> 1 <end>"),
    "<think> <think> </think> 1 <end>": (False, None, "<think> </think> 1 <end>"),
    "</think> 1": (False, None, None),
    "": (False, None, None),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_completions_are_taken_apart(text):
    form, answer, thinking = ANSWERS[text]
    completion = read_completion(VOCABULARY.encode(text))
    assert completion.is_well_formed == form and completion.answer == answer
    assert (completion.thinking is None) == (thinking is None)


def test_rewards_add_up_as_written():
    problem = Problem(FAMILY, 4, "parity 1 0 1 1")
    ids = VOCABULARY.encode("<think> 一 1 0 二 </think> 1 <end>")
    rules = Rules(form_weight=1.0, language_weight=0.5, length_weight=0.8, max_tokens=16, overlong_tokens=12)
    score = rules.score(problem, ids)
    assert score.language == language_share("一 1 0 二") == 0.5 and score.is_right and score.thinks
    assert score.reward == pytest.approx(1 + 1 + 0.25 - 0.8 * 8 / 16 - 4 / 12)
    assert not is_right(problem, VOCABULARY.encode("<think> 1 </think> 0 <end>"))
    with pytest.raises(ValueError, match="need max_tokens"):
        Rules(length_weight=1.0)


def test_evaluation_counts_what_was_written():
    problems = draw_problems(FAMILY, 3, 0)
    result = evaluate(small_policy(), problems, answers=4, max_new_tokens=5)
    assert result.is_right.shape == result.tokens.shape == (3, 4)
    for row, ids in enumerate(result.rollouts.tokens):
        assert result.is_right.flat[row] == is_right(problems[row // 4], ids)
    assert result.text(1, 2) == VOCABULARY.decode(result.rollouts.tokens[6])
    assert set(result.by_level()) == {4}
