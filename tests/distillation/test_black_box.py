"""The counter: what it shows, what it bills, who asks what."""

import random
from collections import Counter

import pytest

from workbench.distillation.black_box import CHOICES, Interface, as_users, covering, unsure
from workbench.distillation.replies import REPLIES, answer_only, perturbed, summary, whole
from workbench.reasoning.completions import prompt_ids, read_completion, solved
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rollout import sample
from workbench.reasoning.tasks import Addition, ModularChain, Parity, draw_problems
from workbench.reasoning.vocabulary import VOCABULARY

FAMILIES = [Parity(bits=4, levels=(2, 3, 4)), ModularChain(modulus=3, operations=2, levels=(1, 2))]
PROBLEMS = [p for f in (Addition(digits=3, levels=(3,)), *FAMILIES) for p in draw_problems(f, 5, 0)]


@pytest.fixture(scope="module")
def teacher():
    config = policy_config(
        32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
    )
    return new_policy(0, config)


def parts(problem, reply, seed=0):
    """The words of the steps and the answer, before and after a reply."""
    own = solved(problem, random.Random(0))
    tokens = own.ids[own.prompt_tokens :]
    seen = reply(own.ids[: own.prompt_tokens], tokens, random.Random(seed))
    return read_completion(tokens), read_completion(seen)


@pytest.mark.parametrize("name", list(REPLIES))
def test_every_reply_keeps_form_and_answer(name):
    for problem in PROBLEMS:
        before, after = parts(problem, REPLIES[name])
        assert after.is_well_formed and after.answer == before.answer and problem.verify(after.answer)


def test_what_is_left_of_the_steps():
    for problem in PROBLEMS:
        before, after = parts(problem, whole)
        assert after == before
        assert parts(problem, answer_only)[1].thinking is None
        words = before.thinking.split()
        kept = [word for begin in range(0, len(words), 4) for word in words[begin : begin + 2]]
        assert parts(problem, summary)[1].thinking.split() == kept


def test_altered_numbers_are_others_in_the_share_asked_for():
    changed = numbers = 0
    for seed, problem in enumerate(PROBLEMS * 20):
        before, after = parts(problem, perturbed(0.3), seed)
        for old, new in zip(before.thinking.split(), after.thinking.split(), strict=True):
            assert old.isdigit() == new.isdigit()
            numbers += old.isdigit()
            changed += old != new
    assert changed / numbers == pytest.approx(0.3, abs=0.04)


def test_a_text_without_form_is_passed_on():
    ids = VOCABULARY.encode("3 </think> </think> 1")
    assert answer_only([1], ids, random.Random(0)) == ids


def test_the_counter_shows_what_the_teacher_drew_and_bills_what_it_wrote(teacher):
    interface = Interface(teacher, max_new_tokens=6, seed=3, most_queries=20)
    first = interface.ask(PROBLEMS[:4])
    drawn = sample(teacher.eval(), [prompt_ids(p) for p in PROBLEMS[:4]], 1, 6, seed=3 * 1_000_003)
    assert [d.ids[d.prompt_tokens :] for d in first] == drawn.tokens
    assert [d.ids[: d.prompt_tokens] for d in first] == [prompt_ids(p) for p in PROBLEMS[:4]]
    again = interface.ask(PROBLEMS[:4])
    assert again != first and interface.queries == 8
    assert interface.written_tokens == sum(len(d.ids) - d.prompt_tokens for d in first + again)
    assert interface.usd(2.0, 5.0) == (interface.prompt_tokens * 2 + interface.written_tokens * 5) / 1e6
    with pytest.raises(ValueError, match="at most 20"):
        interface.ask(PROBLEMS)
    with pytest.raises(ValueError, match="ask less or another way"):
        Interface(teacher, reply="all").ask(PROBLEMS[:1])


def test_hidden_steps_are_billed_all_the_same(teacher, monkeypatch):
    monkeypatch.setitem(REPLIES, "nothing", lambda prompt, tokens, rng: [])
    interface = Interface(teacher, "nothing", max_new_tokens=6)
    interface.ask(PROBLEMS[:4])
    assert interface.shown_tokens == 0 < interface.written_tokens


def test_users_ask_easy_questions_of_the_first_kind_and_covering_asks_all_alike(teacher):
    kinds = [(f.name, level) for f in FAMILIES for level in f.levels]
    users = Counter((p.family.name, p.level) for p in as_users(FAMILIES, 800, 1, teacher))
    weight = {
        (f.name, level): 1 / (i + 1) ** 2 / (j + 1) ** 2
        for i, f in enumerate(FAMILIES)
        for j, level in enumerate(f.levels)
    }
    total = sum(weight.values())
    for kind in kinds:
        assert users[kind] / 800 == pytest.approx(weight[kind] / total, abs=0.05)
    counts = Counter((p.family.name, p.level) for p in covering(FAMILIES, 50, 1, teacher))
    assert [counts[kind] for kind in kinds] == [10] * 5


def test_unsure_asks_what_the_student_answers_differently(teacher, monkeypatch):
    """A student whose answers differ on parity only is asked about parity only."""
    from workbench.distillation import black_box

    class Drawn:
        def __init__(self, tokens):
            self.tokens = tokens

    def answers(policy, prompts, group, *_, **__):
        parity = VOCABULARY.id("parity")
        rows = [
            VOCABULARY.encode(f"</think> {place if parity in prompt else 0} <end>")
            for prompt in prompts
            for place in range(group)
        ]
        return Drawn(rows)

    monkeypatch.setattr(black_box, "sample", answers)
    found = unsure(FAMILIES, 10, 1, teacher)
    assert {p.family.name for p in found} == {"parity"} and len(found) == 10


@pytest.mark.parametrize("name", list(CHOICES))
def test_no_choice_asks_held_out_problems_and_all_follow_from_the_seed(teacher, name):
    asked = [CHOICES[name](FAMILIES, 6, seed, teacher) for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2] and not any(p.is_held_out for p in asked[0])
