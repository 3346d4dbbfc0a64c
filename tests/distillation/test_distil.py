"""Distillation runs: what each row counts, resumption to the bit, who teaches what, and what is learnt."""

import copy
from dataclasses import replace

import pytest
import torch

from workbench import accounting
from workbench.distillation.distil import OBJECTIVES, OPD, DistilRecipe, Teacher, distil, draw_answers
from workbench.distillation.divergences import divergence
from workbench.distillation.domains import TAGS, average, conflicting_chains
from workbench.distillation.spending import Spending, n_read
from workbench.reasoning.completions import prompt_ids, solved
from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.recipe import Questions
from workbench.reasoning.rollout import sample
from workbench.reasoning.tasks import FAMILIES, ModularChain, Parity, draw_problems

SMALL = policy_config(
    32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
)
PARITY, CHAIN = Parity(bits=4, levels=(4,)), ModularChain(modulus=3, operations=2, levels=(2,))
TINY = DistilRecipe(problems=6, max_new_tokens=6, rate=1e-3, warmup_steps=0)


def scene():
    student, first, second = (new_policy(seed, SMALL) for seed in range(3))
    teachers = {
        "first": Teacher(first, ("parity",)),
        "second": Teacher(second, ("modular chain",), weight=2.0),
    }
    return student, teachers


def run(student, teachers, recipe, steps, seed=0, **options):
    return list(distil(student, teachers, Questions([PARITY, CHAIN], seed), recipe, steps, **options))


def test_the_loss_is_eq_29_written_out_row_by_row():
    student, teachers = scene()
    questions = Questions([PARITY, CHAIN], 0)
    problems, seed = questions.take(6), 0
    rollouts, authors = draw_answers(student, teachers, problems, TINY, seed, Spending())
    assert authors == [""] * 6
    total = 0.0
    for row, problem in enumerate(problems):
        teacher = teachers["first" if problem.family is PARITY else "second"]
        prompt, answer = rollouts.prompt(row), rollouts.tokens[row]
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            own, theirs = (m(ids)[0, len(prompt) - 1 : -1] for m in (student, teacher.policy))
        total += teacher.weight * divergence(own, theirs).sum().item()
    loss = run(student, teachers, TINY, 1)[0]["loss"]
    assert loss == pytest.approx(total / rollouts.n_tokens, rel=1e-4)


def test_several_teachers_of_one_family_all_pull():
    student, teachers = scene()
    alone = {"first": Teacher(teachers["first"].policy, ("parity", "modular chain"))}
    twice = {"a": replace(alone["first"], weight=0.25), "b": replace(alone["first"], weight=0.75)}
    one, two = (run(copy.deepcopy(student), who, TINY, 1)[0]["loss"] for who in (alone, twice))
    assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, name):
    recipe = replace(
        OBJECTIVES[name], problems=4, max_new_tokens=5, optimizer="muon" if "GKD" in name else "adamw"
    )
    student, teachers = scene()
    start = copy.deepcopy(student.state_dict())
    rows = run(student, teachers, recipe, 3)
    whole = copy.deepcopy(student.state_dict())
    student.load_state_dict(start)
    run(student, teachers, recipe, 1, folder=tmp_path)
    student.load_state_dict(new_policy(9, SMALL).state_dict())
    again = run(student, teachers, recipe, 3, folder=tmp_path)
    assert all(torch.equal(own, whole[key]) for key, own in student.state_dict().items())
    timeless = [{k: v for k, v in row.items() if k != "s"} for row in (rows[-1], again[-1])]
    assert timeless[0] == timeless[1] and len(again) == 2
    with pytest.raises(ValueError, match="another"):
        run(student, teachers, replace(recipe, rate=1e-5), 4, folder=tmp_path)


def test_rows_count_teacher_tokens_and_work_by_hand():
    student, teachers = scene()
    active = accounting.parameters(SMALL).active
    for name, times in {"OPD, full vocabulary": 2 + 2 + 6, "teacher's texts alone": 2 + 6}.items():
        recipe = replace(OBJECTIVES[name], problems=6, max_new_tokens=6)
        problems = Questions([PARITY, CHAIN], 0).take(6)
        rollouts, _ = draw_answers(student, teachers, problems, recipe, 0, Spending())
        row = run(copy.deepcopy(student), teachers, recipe, 1)[0]
        assert row["teacher_tokens"] == rollouts.n_tokens
        assert row["flop"] == times * active * n_read(rollouts, range(6))


def test_the_teachers_heads_are_loaded_once_and_the_bytes_reported():
    student, teachers = scene()
    row = run(student, teachers, TINY, 1)[0]
    assert row["head_loads"] == 2
    assert row["logit_bytes"] / row["state_bytes"] == SMALL.vocab_size / 32


def test_teachers_write_for_their_own_families_and_share_as_asked():
    student, teachers = scene()
    problems = Questions([PARITY, CHAIN], 0).take(40)
    for share in (0.0, 0.5):
        recipe = replace(TINY, student_share=share)
        rollouts, authors = draw_answers(student, teachers, problems, recipe, 3, Spending())
        own = {"parity": "first", "modular chain": "second"}
        assert all(name in ("", own[p.family.name]) for name, p in zip(authors, problems, strict=True))
        assert (0.2 < authors.count("") / 40 < 0.8) if share else authors.count("") == 0
    row = next(i for i, name in enumerate(authors) if name == "second")
    rows = [i for i, name in enumerate(authors) if name == "second"]
    drawn = sample(teachers["second"].policy.eval(), [prompt_ids(problems[i]) for i in rows], 1, 6, seed=3)
    assert rollouts.tokens[row] == drawn.tokens[0]


def test_a_student_learns_what_its_teacher_can():
    """A parity teacher of a few seconds; a student that does not know the task learns it from its texts."""
    import random

    teacher = new_policy(0, SMALL)
    problems, rng = draw_problems(PARITY, 16, 0), random.Random(0)
    held = draw_problems(PARITY, 2, 1, is_held_out=True)
    list(fine_tune(teacher, [solved(p, rng) for p in problems] * 20, 60, rate=1e-2, rows=4))
    skill = evaluate(teacher, problems + held, answers=4, max_new_tokens=8).is_right.mean()
    assert skill > 0.9
    questions = Questions([PARITY], 0)
    student, taught = new_policy(1, SMALL), {"t": Teacher(teacher, ("parity",))}
    for name in ("forward KL, teacher's texts", "OPD, full vocabulary"):
        recipe = replace(OBJECTIVES[name], problems=16, max_new_tokens=8, rate=1e-2, optimizer="muon")
        rows = list(distil(student, taught, questions, recipe, 25))
        assert rows[-1]["loss"] < rows[0]["loss"]
    found = evaluate(student, problems, answers=4, max_new_tokens=8).is_right.mean()
    assert found > 0.8 > evaluate(new_policy(1, SMALL), problems, answers=4, max_new_tokens=8).is_right.mean()


def test_rejection_learns_from_the_right_texts_alone(monkeypatch):
    """Every third text passes; loss and work are those of the others taken out by hand."""
    student, teachers = scene()
    recipe = replace(OBJECTIVES["teacher's right texts"], problems=6, max_new_tokens=6)
    problems = Questions([PARITY, CHAIN], 0).take(6)
    rollouts, _ = draw_answers(student, teachers, problems, recipe, 0, Spending())
    passed = [0, 3]
    texts = [rollouts.tokens[row] for row in passed]
    monkeypatch.setattr("workbench.distillation.distil.is_right", lambda problem, ids: ids in texts)
    row = run(copy.deepcopy(student), teachers, recipe, 1)[0]
    total = 0.0
    for own in passed:
        prompt, answer = rollouts.prompt(own), rollouts.tokens[own]
        with torch.no_grad():
            log_q = student(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1].log_softmax(-1)
        total -= sum(log_q[place, word].item() for place, word in enumerate(answer))
    assert row["kept"] == 2 and row["loss"] == pytest.approx(total / sum(map(len, texts)), rel=1e-4)
    active = accounting.parameters(SMALL).active
    assert row["flop"] == active * (2 * n_read(rollouts, range(6)) + 6 * n_read(rollouts, passed))
    assert row["teacher_tokens"] == rollouts.n_tokens

    monkeypatch.setattr("workbench.distillation.distil.is_right", lambda problem, ids: False)
    before = copy.deepcopy(student.state_dict())
    assert run(student, teachers, recipe, 1)[0]["kept"] == 0
    assert all(torch.equal(own, before[name]) for name, own in student.state_dict().items())
    with pytest.raises(ValueError, match="leave it out"):
        DistilRecipe(right_only=True)


def test_who_has_no_teacher_is_told():
    student, teachers = scene()
    with pytest.raises(ValueError, match="needs one or more for every family"):
        list(distil(student, teachers, Questions([FAMILIES["addition"]], 0), OPD, 1))
    with pytest.raises(ValueError, match="correct the one outside"):
        DistilRecipe(student_share=1.5)


def test_tagged_domains_contradict_each_other():
    families = conflicting_chains(12)
    assert len({f.name for f in families}) == 12 and {f.tag for f in families} <= set(TAGS)
    a, b = families[0], families[4]
    assert a.verify("A chain 2 + 2 + 0 + 0", "1") and b.verify("E chain 2 + 2 + 0 + 0", "4")
    assert a.solve("A chain 2 + 2 + 0 + 0", None) != b.solve("E chain 2 + 2 + 0 + 0", None)
    for family in families:
        problem = draw_problems(family, 1, 0)[0]
        assert problem.question.startswith(family.tag) and problem.verify(problem.solve().answer)
    with pytest.raises(ValueError, match="ask for fewer"):
        conflicting_chains(len(TAGS) + 1)


def test_the_average_is_the_mean_of_every_weight():
    policies = [new_policy(seed, SMALL) for seed in range(3)]
    merged = average(policies)
    for name, own in merged.named_parameters():
        expected = sum(dict(p.named_parameters())[name] for p in policies) / 3
        torch.testing.assert_close(own, expected)
    with pytest.raises(ValueError, match="one configuration"):
        average([policies[0], new_policy(0, policy_config(64))])
