"""A small V4 and its calculator, in several seeds: a recorded study.

    python -m workbench.reasoning.agent_study

Every seed learns from demonstrations that call the tool or do not, by chance; then reward, less a price a
token, says when a call pays. Held-out sums are the same for all. Asked three times: without the tool,
with it as demonstrated, and with it after reward.
"""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from workbench.model import Transformer
from workbench.reasoning.agent import (
    Conversation,
    agent_config,
    converse,
    demonstrations,
    gather_talks,
    transcript,
)
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.grpo import train_policy
from workbench.reasoning.measures import bootstrap
from workbench.reasoning.pipelines import ZERO
from workbench.reasoning.policy import new_policy
from workbench.reasoning.recipe import Questions, RLRecipe
from workbench.reasoning.rewards import Rules
from workbench.reasoning.tasks import draw_problems
from workbench.reasoning.tasks.sums import Sum
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.reasoning.agent_study"
RECORD = FOLDER / "agent.json"
SEEDS = (0, 1, 2)
SHOWN_STEPS, RL_STEPS, N_TEST, ANSWERS = 400, 24, 90, 2
N_TALKS = 6
TOKEN_PRICE = 0.006
"""A call takes some 45 tokens more: it pays where it makes the answer right more often by a quarter."""


def tool_recipe(token_price: float = TOKEN_PRICE) -> RLRecipe:
    """GRPO with a price a token."""
    rules = Rules(length_weight=64 * token_price, max_tokens=64)
    return replace(ZERO, rules=rules, max_new_tokens=64, questions=8, group_size=8, rate=5e-4)


def shown(policy: Transformer, steps: int, *, seed: int = 0) -> Generator[dict[str, Any], None, None]:
    """Teach a fresh policy the format: calls and sums in the head, by chance."""
    return fine_tune(policy, demonstrations(4000, seed), steps, rows=8, row_tokens=128, seed=seed)


def ask(
    policy: Transformer, has_tool: bool, *, count: int = N_TEST, answers: int = ANSWERS
) -> list[Conversation]:
    """Conversations about held-out sums."""
    test = draw_problems(Sum(), count, 1, is_held_out=True)
    was_training = policy.training
    talks, _ = converse(policy.eval(), test, has_tool=has_tool, answers=answers, seed=1)
    policy.train(was_training)
    return talks


def summary(talks: list[Conversation], answers: int = ANSWERS) -> dict[str, Any]:
    """By the numbers' digits: accuracy with its interval over problems, calls, tokens, unreadable turns."""
    found = {}
    for digits in sorted({talk.problem.level for talk in talks}):
        mine = [talk for talk in talks if talk.problem.level == digits]
        right = np.array([talk.is_right for talk in mine]).reshape(-1, answers)
        found[str(digits)] = {
            "accuracy": list(bootstrap(right.mean(axis=1))),
            "calls": float(np.mean([talk.calls > 0 for talk in mine])),
            "tokens": float(np.mean([talk.tokens for talk in mine])),
            "unreadable": float(np.mean([bool(talk.error) for talk in mine])),
        }
    return found


def run(seed: int) -> dict[str, Any]:
    """One seed: what it does without the tool, with it, and with it after reward."""
    policy = new_policy(seed, agent_config())
    for _ in shown(policy, SHOWN_STEPS, seed=seed):
        pass
    found: dict[str, Any] = {
        "no tool": summary(ask(policy, False)),
        "tool, shown": summary(ask(policy, True)),
    }
    steps = list(train_policy(policy, Questions([Sum()], seed), tool_recipe(), RL_STEPS, gather=gather_talks))
    found["steps"] = [{name: row[name] for name in ("accuracy", "thinks", "tokens")} for row in steps]
    talks = ask(policy, True)
    found["tool, after reward"] = summary(talks)
    found["talks"] = [transcript(talk) for talk in talks[: N_TALKS * ANSWERS : ANSWERS]]
    print(
        seed,
        {name: {d: own["accuracy"][0] for d, own in found[name].items()} for name in SETTINGS},
        flush=True,
    )
    return found


SETTINGS = ("no tool", "tool, shown", "tool, after reward")


def read_study() -> list[dict[str, Any]]:
    """A row a seed, setting and number of digits: {"seed", "setting", "digits", "accuracy", "low", "high",
    "calls", "tokens", "unreadable"}.
    """
    return [
        {"seed": one["settings"]["seed"], "setting": setting, "digits": int(digits)}
        | found
        | dict(zip(("accuracy", "low", "high"), found["accuracy"], strict=True))
        for one in Records(RECORD, COMMAND).found.values()
        for setting in SETTINGS
        for digits, found in one["result"][setting].items()
    ]


def read_talks() -> list[dict[str, Any]]:
    """Conversations of the first seed after reward, a row a message: as `agent.transcript`, numbered."""
    first = next(iter(Records(RECORD, COMMAND).found.values()))
    return [{"talk": n, **row} for n, talk in enumerate(first["result"]["talks"]) for row in talk]


def first_call(talks: list[dict[str, Any]]) -> tuple[int, int]:
    """Of `read_talks`: the first conversation that calls the tool, and its last turn."""
    talk = next(row["talk"] for row in talks if row["who"] == "tool")
    return talk, max(row["turn"] for row in talks if row["talk"] == talk)


def main() -> None:
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    for seed in SEEDS:
        records.get({"seed": seed}, lambda: run(seed))  # noqa: B023


if __name__ == "__main__":
    main()
