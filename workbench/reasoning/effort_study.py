"""Accuracy against tokens under three efforts, in several seeds: a recorded study.

    python -m workbench.reasoning.effort_study

Every seed has a base of its own. The test problems are the same for all.
"""

import copy
from typing import Any

import numpy as np
import torch

from workbench.reasoning.effort import EFFORTS, train_effort, undecided
from workbench.reasoning.evaluation import Evaluation, evaluate
from workbench.reasoning.policy import new_policy
from workbench.reasoning.tasks import ModularChain, draw_problems
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.reasoning.effort_study"
RECORD = FOLDER / "effort.json"
FAMILY = ModularChain(modulus=5, operations=4, levels=(1, 2, 3, 4))
SEEDS = (0, 1, 2)
BASE_STEPS, RL_STEPS, N_TEST, ANSWERS = 700, 40, 200, 4
N_TRACES = 12


def summary(found: Evaluation) -> dict[str, Any]:
    """Accuracy with its interval over problems, tokens and thinking, in all and by level; some answers."""
    levels = np.array([problem.level for problem in found.problems])
    traces = [
        {
            "question": problem.question,
            "level": problem.level,
            "text": found.text(i),
            "tokens": int(found.tokens[i, 0]),
            "is_right": bool(found.is_right[i, 0]),
        }
        for i, problem in enumerate(found.problems[:N_TRACES])
    ]
    return {
        "traces": traces,
        "modes": {
            name: {
                "accuracy": float(found.is_right[where].mean()),
                "tokens": float(found.tokens[where].mean()),
            }
            for name, where in (("thinking", found.thinks), ("at once", ~found.thinks))
            if where.any()
        },
        "accuracy": list(found.accuracy),
        "tokens": found.mean_tokens,
        "thinks": float(found.thinks.mean()),
        "levels": {
            str(level): {
                "accuracy": float(found.is_right[levels == level].mean()),
                "thinks": float(found.thinks[levels == level].mean()),
            }
            for level in sorted(set(levels.tolist()))
        },
    }


def run(seed: int) -> dict[str, Any]:
    """One seed: a base, and from it a policy for every effort; the base is asked under "high"."""
    base = new_policy(seed)
    for _ in undecided(base, FAMILY, BASE_STEPS, seed=seed):
        pass
    test = draw_problems(FAMILY, N_TEST, 1, is_held_out=True)
    high = EFFORTS["high"]
    before = evaluate(base, test, answers=ANSWERS, max_new_tokens=high.window, system=high.word)
    found = {"base": summary(before)}
    for name, effort in EFFORTS.items():
        policy = copy.deepcopy(base)
        for _ in train_effort(policy, FAMILY, effort, RL_STEPS, seed=seed):
            pass
        after = evaluate(policy, test, answers=ANSWERS, max_new_tokens=effort.window, system=effort.word)
        found[name] = summary(after)
        print(seed, name, after.accuracy, f"{after.mean_tokens:.1f} tokens", flush=True)
    return found


def read_study() -> list[dict[str, Any]]:
    """A row a seed and effort: {"seed", "effort", "accuracy", "tokens", "thinks", "levels", "modes",
    "traces"}.
    """
    return [
        {"seed": one["settings"]["seed"], "effort": effort, **found}
        for one in Records(RECORD, COMMAND).found.values()
        for effort, found in one["result"].items()
    ]


def frontier_rows(study: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `plots.agents.frontier_figure`: every effort, and the ends of what mixing blindly reaches.

    Whoever lets the base think at random, in whatever share, lands on the line between its two ways.
    """
    rows = []
    for own in study:
        value, low, high = own["accuracy"]
        rows.append({**own, "accuracy": value, "low": low, "high": high})
        if own["effort"] == "base":
            rows += [
                {"seed": own["seed"], "effort": "blind mixing", **mode} for mode in own["modes"].values()
            ]
    return rows


def above_mixing(study: list[dict[str, Any]], effort: str) -> list[float]:
    """How far an effort's accuracy lies above that of mixing blindly at as many tokens: one number a seed."""
    found = []
    for own in study:
        if own["effort"] == effort:
            (base,) = (row for row in study if (row["seed"], row["effort"]) == (own["seed"], "base"))
            once, thought = (base["modes"][mode] for mode in ("at once", "thinking"))
            share = (own["tokens"] - once["tokens"]) / (thought["tokens"] - once["tokens"])
            found.append(
                own["accuracy"][0] - once["accuracy"] - share * (thought["accuracy"] - once["accuracy"])
            )
    return found


def main() -> None:
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    for seed in SEEDS:
        records.get({"seed": seed}, lambda: run(seed))  # noqa: B023


if __name__ == "__main__":
    main()
