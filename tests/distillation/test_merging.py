"""Scenes and ways to merge, at a size of seconds: work counted, budgets kept, nothing shared by mistake."""

import copy

import pytest
import torch

from workbench import accounting
from workbench.distillation.merge_study import SCENES, methods, read_study
from workbench.distillation.merging import averaged, distilled, mixed, recipe_of
from workbench.distillation.scenes import ROW_TOKENS, ROWS, contradicting, documents, reinforce, small_student
from workbench.reasoning.completions import read_completion
from workbench.reasoning.tasks import draw_problems

FEW = {"problems": 4, "rate": 1e-3}


@pytest.fixture(scope="module")
def scene():
    return contradicting(domains=2, base_steps=2, sft_steps=1, rl_steps=1)


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def test_a_specialist_starts_from_the_base_and_its_work_is_counted(scene):
    active = accounting.parameters(scene.base.config).active
    assert scene.sft_flop == 2 * 6 * active * ROWS * ROW_TOKENS
    answers = 2 * scene.recipe.questions * scene.recipe.group_size
    prompt = len(draw_problems(scene.families[0], 1, 0)[0].question.split()) + 2
    lowest, highest = (8 * active * answers * (prompt + n) for n in (1, scene.recipe.max_new_tokens))
    assert lowest <= scene.rl_flop <= highest
    for teacher in scene.teachers.values():
        assert not torch.equal(weights(teacher.policy), weights(scene.base))
    assert [name for t in scene.teachers.values() for name in t.families] == [f.name for f in scene.families]


def test_documents_are_right_and_of_every_family(scene):
    own = documents(scene.families, 10, 0)
    problems = [p for f in scene.families for p in draw_problems(f, 5, 0)]
    for document, problem in zip(own, problems, strict=True):
        assert problem.verify(read_completion(document.ids[document.prompt_tokens :]).answer)


def test_distilling_leaves_base_and_teachers_as_they_were(scene):
    before = [weights(scene.base), *(weights(t.policy) for t in scene.teachers.values())]
    seen = list(distilled(scene, "OPD, full vocabulary", 3, FEW, every=2, seed=0))
    assert [row["step"] for row, _ in seen] == [2, 3]
    assert not torch.equal(weights(seen[-1][1]), before[0])
    after = [weights(scene.base), *(weights(t.policy) for t in scene.teachers.values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    with pytest.raises(ValueError, match="needs one of"):
        recipe_of("OPD", scene, {})


def test_mixed_training_spends_what_the_specialists_and_the_merge_did(scene):
    flop = scene.sft_flop + scene.rl_flop * 2.5
    policy, spent = mixed(scene, flop, seed=0)
    one_step = (
        2 * scene.rl_flop
    )  # two specialists of a step of half as many answers: a mixed step is all of it
    assert flop <= spent <= flop + one_step
    assert not torch.equal(weights(policy), weights(scene.base))


def test_a_budget_stops_reinforcement(scene):
    own = [reinforce(copy.deepcopy(scene.base), scene.families, scene.recipe, 3, 0, budget=b) for b in (0, 1)]
    assert own[0] > 2 * own[1] > 0


def test_the_average_lies_between(scene):
    merged = weights(averaged(scene))
    a, b = (weights(t.policy) for t in scene.teachers.values())
    torch.testing.assert_close(merged, (a + b) / 2)


def test_the_small_student_is_dense_and_smaller():
    scene = small_student(teacher_steps=1, student_steps=1)
    teacher = scene.teachers["teacher"].policy
    assert scene.base.config.n_routed_experts == 1 < teacher.config.n_routed_experts
    assert accounting.parameters(scene.base.config).total < accounting.parameters(teacher.config).total / 3
    assert 0 <= scene.score(teacher, scene.families[0], 5).value <= 1


def test_the_record_holds_every_method_and_seed_with_where_it_came_from():
    found = read_study()
    for name in SCENES:
        for method in methods(name):
            seeds = sorted(seed for scene, way, seed in found if (scene, way) == (name, method))
            assert seeds == ([20] if method in ("teachers", "weights averaged") else [20, 21, 22])
    for (_, method, _), result in found.items():
        assert all(0 <= value <= 1 for value in result["accuracy"].values())
        if method == "data mixed, then mixed RL":
            assert result["flop"] > 0
