"""An agent in V4's chat format: what it learns from, what it may call, and whose tokens earn the reward."""

import dataclasses
import json
import random

import pytest
import torch

from workbench.model.chat import Message, ToolCall, encode_messages
from workbench.reasoning.agent import (
    SHORT,
    Conversation,
    agent_config,
    chat_tokenizer,
    converse,
    demonstrated,
    demonstrations,
    gather_talks,
    opening,
    transcript,
)
from workbench.reasoning.agent_study import SEEDS, SETTINGS, read_study, read_talks, shown, tool_recipe
from workbench.reasoning.completions import Document
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.grpo import Questions, train_policy
from workbench.reasoning.policy import new_policy
from workbench.reasoning.tasks import Problem, draw_problems
from workbench.reasoning.tasks.sums import Sum

LONG = Problem(Sum(), 3, "482 + 907")


def written(messages: list[Message], said: Message) -> list[int]:
    """What a policy would write to say this."""
    before, whole = (encode_messages(m, "thinking", templates=SHORT) for m in (messages, [*messages, said]))
    return chat_tokenizer().encode_prompt(whole.after(before))


def calling(name: str, **arguments: str) -> Message:
    return Message(
        role="assistant", reasoning_content="ask", tool_calls=(ToolCall(name, json.dumps(arguments), id="0"),)
    )


def small_policy(seed: int = 0):
    config = agent_config().replace(hidden_size=32, moe_intermediate_size=16)
    return new_policy(seed, config)


def test_sums_are_checked_by_rule_and_know_their_mirror():
    family = Sum()
    assert family.verify("048 + 007", "0055")
    assert not any(family.verify("048 + 007", text) for text in ("55", "0056", "", "x"))
    assert family.key("048 + 007") == family.key("007 + 048")
    for problem in draw_problems(family, 60, 0):
        a, b = map(int, problem.question.split(" + "))
        assert len(str(a)) == len(str(b)) == problem.level and problem.verify(f"{a + b:04}")


def test_a_digit_is_a_token_and_no_text_becomes_markup():
    words = chat_tokenizer()
    assert len(words.encode("482 + 907")) == 8
    assert not any(sum(c.isdigit() for c in words.decode([i])) > 1 for i in range(words.vocab_size))


def test_a_call_is_worked_out_and_the_answer_after_it_counts():
    talk = Conversation(LONG, opening(LONG, has_tool=True))
    call = written(talk.messages, calling("calculator", expression=LONG.question))
    talk.take(call)
    assert talk.messages[-1].content == "1389" and talk.is_open and not talk.is_right and talk.calls == 1
    answer = written(talk.messages, Message(role="assistant", content="1389"))
    talk.take(answer)
    assert talk.is_right and not talk.is_open and talk.tokens == len(call) + len(answer)
    rows = transcript(talk)
    assert [row["who"] for row in rows] == ["system", "user", "assistant", "tool", "assistant"]
    assert (rows[2]["tokens"], rows[4]["tokens"]) == (len(call), len(answer))
    whole = encode_messages(talk.messages, "thinking", templates=SHORT)
    assert "".join(row["text"] for row in rows) == whole.text


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (calling("shell", command="ls"), "the tool is calculator"),
        (calling("calculator", code="1 + 1"), "the tool is calculator"),
    ],
)
def test_what_is_no_call_of_the_tool_ends_the_conversation(said, heard):
    talk = Conversation(LONG, opening(LONG, has_tool=True))
    talk.take(written(talk.messages, said))
    assert heard in talk.error and not talk.is_open and talk.calls == 0
    broken = Conversation(LONG, opening(LONG, has_tool=True))
    broken.take(chat_tokenizer().encode("1389"))
    assert "parse_completion" in broken.error and not broken.is_right


def test_text_in_a_call_is_never_run():
    talk = Conversation(LONG, opening(LONG, has_tool=True))
    talk.take(written(talk.messages, calling("calculator", expression="__import__('os')")))
    assert talk.messages[-1].content.startswith("error")


def test_demonstrations_call_by_chance_and_teach_only_what_the_assistant_says():
    rng = random.Random(0)
    talks = [demonstrated(p, rng) for p in draw_problems(Sum(), 300, 1)]
    with_tool = [talk for talk in talks if talk[0].tools]
    assert 0.55 < len(with_tool) / 300 < 0.78
    assert 0.4 < sum(len(talk) > 3 for talk in with_tool) / len(with_tool) < 0.6
    words = chat_tokenizer()
    for document in demonstrations(40, 0):
        heard = words.decode(document.ids[i] for i in document.heard)
        taught = [
            document.ids[i]
            for i in range(document.prompt_tokens, len(document.ids))
            if i not in document.heard
        ]
        called = any(words.decode([i]) == "｜DSML｜" for i in taught)
        assert ("<tool_result>" in heard and heard.endswith("<think>")) if called else not heard
        assert "tool_result" not in words.decode(taught)
        assert taught.count(words.eos_token_id) == 1 + called


def test_what_others_say_carries_no_loss():
    """The loss of one step is the mean surprise of the taught tokens, worked out by hand."""
    ids = chat_tokenizer().encode("482 + 907 = 1389")

    def loss(heard: range) -> float:
        (row,) = fine_tune(small_policy(), [Document(ids, 2, heard)], 1, rows=1, row_tokens=32)
        return row["loss"]

    with torch.no_grad():
        logits = small_policy()(torch.tensor([ids]))[0, :-1].log_softmax(dim=-1)
    surprise = -logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    for heard in (range(0), range(4, 7)):
        taught = [place for place in range(2, len(ids)) if place not in heard]
        assert loss(heard) == pytest.approx(float(surprise[[p - 1 for p in taught]].mean()), rel=1e-4)


def test_every_turn_is_drawn_from_the_policy_and_shares_the_advantage_of_its_end(monkeypatch):
    """A policy that has seen 25 demonstrations writes some calls; rewards are then dealt by hand."""
    policy = small_policy()
    list(shown(policy, 40))
    recipe = dataclasses.replace(tool_recipe(), questions=6, group_size=4)
    problems = draw_problems(Sum(), 6, 0)
    drawn = gather_talks(policy, problems, recipe, seed=5)
    talks, rollouts = converse(policy, problems, answers=4, seed=5)
    assert [len(r) for r in rollouts] == [24, *(len(e.rollouts) for e in drawn.later)]
    assert [score.tokens for score in drawn.scores] == [talk.tokens for talk in talks]
    for talk, score in zip(talks, drawn.scores, strict=True):
        assert score.reward == pytest.approx(talk.is_right - 0.006 * talk.tokens)
    for row, talk in enumerate(talks):
        for turn, place in talk.places[1:]:
            assert drawn.later[turn - 1].advantage[place] == drawn.advantage[row]


def test_reinforcement_runs_over_all_turns_and_resumes(tmp_path):
    recipe = dataclasses.replace(tool_recipe(), questions=4, group_size=4, max_new_tokens=16)
    policy = small_policy()

    def run(own, steps, **more):
        return list(
            train_policy(
                own, Questions([Sum()], 0), recipe, steps, gather=gather_talks, checkpoint_every=1, **more
            )
        )

    rows = run(policy, 2)
    run(small_policy(), 1, folder=tmp_path)
    resumed = small_policy(7)
    assert [row["reward"] for row in run(resumed, 2, folder=tmp_path)] == [rows[1]["reward"]]
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), resumed.parameters(), strict=True))
    with pytest.raises(ValueError, match="of another run"):
        list(train_policy(small_policy(), Questions([Sum()], 0), recipe, 3, folder=tmp_path))


def test_the_study_is_whole_and_the_tool_helps_where_the_head_fails():
    rows = {(row["seed"], row["setting"], row["digits"]): row for row in read_study()}
    seeds = {seed for seed, *_ in rows}
    assert seeds and seeds <= set(SEEDS) and len(rows) == len(seeds) * len(SETTINGS) * 3
    for seed in seeds:
        for digits in (2, 3):
            assert rows[seed, "tool, after reward", digits]["low"] > rows[seed, "no tool", digits]["high"]
            assert rows[seed, "tool, after reward", digits]["low"] > rows[seed, "tool, shown", digits]["high"]
    assert {row["who"] for row in read_talks()} >= {"system", "user", "assistant", "tool"}
