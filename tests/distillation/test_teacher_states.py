"""Teachers' hidden states: the same KL as from their logits, each head loaded once, and the bytes saved."""

import pytest
import torch

from workbench.config import load_config
from workbench.distillation.chunked import linear_divergence
from workbench.distillation.divergences import divergence
from workbench.distillation.teacher_states import Heads, TeacherStates, answer_states
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rollout import sample

CONFIG = policy_config(
    32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
)


@pytest.fixture(scope="module")
def scene():
    student, *teachers = (new_policy(seed, CONFIG).eval() for seed in range(3))
    rollouts = sample(student, [[1, 20, 21], [1, 22], [1, 23, 24, 25]], 2, 5, seed=0)
    return student, dict(zip("ab", teachers, strict=True)), rollouts


ROWS = {"a": [0, 3, 4], "b": [1, 2, 5]}


def read(teachers, rollouts, dtype=None) -> TeacherStates:
    states = TeacherStates(dtype)
    for name, rows in ROWS.items():
        states.read(name, teachers[name], rollouts, rows)
    return states


def test_states_give_the_kl_of_whole_logits_row_by_row(scene):
    student, teachers, rollouts = scene
    for name, rows, kept in read(teachers, rollouts).by_teacher():
        ours = linear_divergence(
            answer_states(student, rollouts, rows), student.lm_head.weight, kept,
            teachers[name].lm_head.weight, torch.ones(len(kept)),
        )  # fmt: skip
        expected = 0.0
        for row in rows:  # every row by itself, unpadded, through the model's own logits
            prompt, answer = rollouts.prompt(row), rollouts.tokens[row]
            ids = torch.tensor([prompt + answer])
            with torch.no_grad():
                own, theirs = (m(ids)[0, len(prompt) - 1 : -1] for m in (student, teachers[name]))
            expected += divergence(own, theirs).sum().item()
        assert ours.item() == pytest.approx(expected, rel=1e-4)


def test_each_head_is_loaded_once_in_teacher_order_and_often_in_row_order(scene):
    _, teachers, rollouts = scene
    load = {name: (lambda t=t: t.lm_head.weight) for name, t in teachers.items()}
    ordered = Heads(load)
    assert [
        (name, rows) for name, rows, _ in read(teachers, rollouts).by_teacher() if ordered[name].numel()
    ] == [
        ("a", [0, 3, 4]),
        ("b", [1, 2, 5]),
    ]
    assert ordered.loads == 2 and ordered.resident == "b"
    mixed = Heads(load)
    for row in range(6):
        assert torch.equal(mixed["a" if row in ROWS["a"] else "b"], load["a" if row in ROWS["a"] else "b"]())
    assert mixed.loads == 4


def test_the_bytes_are_hidden_size_against_vocabulary(scene):
    _, teachers, rollouts = scene
    states = read(teachers, rollouts)
    tokens = rollouts.n_tokens
    assert states.n_bytes == tokens * 32 * 4
    assert states.logit_bytes(CONFIG.vocab_size) == tokens * CONFIG.vocab_size * 4
    assert read(teachers, rollouts, torch.bfloat16).n_bytes == tokens * 32 * 2
    pro = load_config("deepseek-v4-pro")
    assert pro.vocab_size / pro.hidden_size == pytest.approx(18.04, abs=0.01)
