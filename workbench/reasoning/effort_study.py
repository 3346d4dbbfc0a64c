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
BASE_STEPS, RL_STEPS, N_TEST, ANSWERS = 400, 40, 200, 4


def summary(found: Evaluation) -> dict[str, Any]:
    """Accuracy with its interval over problems, tokens and thinking, in all and by level."""
    levels = np.array([problem.level for problem in found.problems])
    return {
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
    """A row a seed and effort: {"seed", "effort", "accuracy", "tokens", "thinks", "levels"}."""
    return [
        {"seed": one["settings"]["seed"], "effort": effort, **found}
        for one in Records(RECORD, COMMAND).found.values()
        for effort, found in one["result"].items()
    ]


def main() -> None:
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    for seed in SEEDS:
        records.get({"seed": seed}, lambda: run(seed))  # noqa: B023


if __name__ == "__main__":
    main()
