"""What reward alone does to held-out accuracy, by family, in three seeds each: a recorded study.

    python -m workbench.reasoning.reward_study

One more family stands in `effort_study`: its base, and its effort "max", whose tokens cost nothing.
Every seed has a base of its own. The test problems of a family are the same for all seeds; the policy
that is measured is the last one, whatever came before. Results are written one by one.
"""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from workbench.reasoning.evaluation import Evaluation, evaluate
from workbench.reasoning.measures import bootstrap
from workbench.reasoning.pipelines import ZERO, base, r1_zero
from workbench.reasoning.policy import new_policy
from workbench.reasoning.recipe import RLRecipe
from workbench.reasoning.tasks import Addition, Parity, draw_problems
from workbench.reasoning.tasks.problem import Family
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.reasoning.reward_study"
RECORD = FOLDER / "reward.json"
SEEDS = (0, 1, 2)
N_TEST, ANSWERS = 100, 8


SHORT = replace(ZERO, max_new_tokens=24)
MUON = replace(SHORT, optimizer="muon", minibatches=4)


@dataclass(frozen=True)
class Trial:
    """A family, how long its base and its reinforcement are, and by which recipe."""

    family: Family
    base_steps: int
    rl_steps: int
    recipe: RLRecipe = SHORT


TRIALS = {
    "addition": Trial(Addition(), 600, 50, MUON),
    "parity": Trial(Parity(), 200, 60),
}


def summary(found: Evaluation) -> dict[str, Any]:
    """Accuracy and pass@k with intervals over problems, length, and thinking."""
    return {
        "accuracy": list(found.accuracy),
        "pass": {str(k): list(found.pass_at(k)) for k in (1, 2, 4, 8)},
        "tokens": found.mean_tokens,
        "thinks": float(found.thinks.mean()),
        "right_when_thinking": float(found.is_right[found.thinks].mean()) if found.thinks.any() else None,
        "right_at_once": float(found.is_right[~found.thinks].mean()) if not found.thinks.all() else None,
    }


def run(name: str, seed: int) -> dict[str, Any]:
    """One family and seed: the base, the steps, what reward left, and the gain paired over problems."""
    trial, policy = TRIALS[name], new_policy(seed)
    for _ in base(policy, [trial.family], trial.base_steps, seed=seed):
        pass
    test = draw_problems(trial.family, N_TEST, 1, is_held_out=True, are_different=True)
    ask = partial(evaluate, problems=test, answers=ANSWERS, max_new_tokens=trial.recipe.max_new_tokens)
    before = ask(policy)
    steps = list(r1_zero(policy, [trial.family], trial.rl_steps, recipe=trial.recipe, seed=seed))
    after = ask(policy)
    print(name, seed, before.accuracy, after.accuracy, flush=True)
    return {
        "before": summary(before),
        "after": summary(after),
        "gain": list(bootstrap(after.is_right.mean(axis=1) - before.is_right.mean(axis=1))),
        "steps": [
            {
                field: round(row[field], 4)
                for field in ("step", "accuracy", "thinks", "tokens", "entropy", "dead")
            }
            for row in steps
        ],
    }


def read_study() -> list[dict[str, Any]]:
    """A row a family and seed: {"family", "seed", "before", "after", "gain", "steps"}."""
    return [{**one["settings"], **one["result"]} for one in Records(RECORD, COMMAND).found.values()]


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="*", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.families:
        for seed in chosen.seeds:
            Records(RECORD, COMMAND).get({"family": name, "seed": seed}, partial(run, name, seed))


if __name__ == "__main__":
    main()
