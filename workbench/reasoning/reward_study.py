"""What reward alone does to held-out accuracy, by family, in three seeds each: a recorded study.

    python -m workbench.reasoning.reward_study

    addition            the base adds digit by digit and was then tilted towards answering at once
    parity              likewise, with fewer steps of both
    division            the base searches and was then tilted by hasty solutions, which give up
    division, longer    a longer tilt, more steps of reward, and twice the tokens

One more family stands in `effort_study`: its base, and its effort "max", whose tokens cost nothing.
Every seed has a base of its own. The test problems of a family are the same for all seeds, of division
all there are; the policy that is measured is the last one, whatever came before. Results are written one
by one.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from workbench.reasoning.evaluation import Evaluation, evaluate
from workbench.reasoning.measures import bootstrap
from workbench.reasoning.pipelines import ZERO, Rows, base, r1_zero
from workbench.reasoning.policy import new_policy
from workbench.reasoning.recipe import RLRecipe
from workbench.reasoning.tasks import Addition, Division, Parity, draw_problems
from workbench.reasoning.tasks.problem import Family
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.reasoning.reward_study"
RECORD = FOLDER / "reward.json"
ANSWERS = 16
CAPS = (8, 11, 17, 26, 80, 160)  # tokens within which an answer must have ended


@dataclass(frozen=True)
class Trial:
    """A family, how its base is taught, and how it is reinforced.

    Args:
        stages: numbers of steps, each with its recipe, one after the other.
        n_test: held-out problems, and as many of the training side to hold against them.
        seeds: 3 to 5 where 0 to 2 had a part in settling the recipe.
    """

    family: Family
    teach: Callable[..., Rows]
    stages: tuple[tuple[int, RLRecipe], ...]
    n_test: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def rl_steps(self) -> int:
        return sum(steps for steps, _ in self.stages)


SEARCH = Division(levels=(16,))  # every pair alike
SHORT = replace(ZERO, max_new_tokens=24)
LONG = replace(ZERO, max_new_tokens=80)
LONGER = replace(ZERO, max_new_tokens=160)
search = partial(
    base,
    families=[SEARCH],
    steps=1000,
    rows=12,
    thinking=1.0,
    tilted_thinking=1.0,
    tilted_families=[replace(SEARCH, haste=0.6)],
)
TRIALS = {
    "addition": Trial(
        Addition(),
        partial(
            base, families=[Addition()], steps=700, rows=16, thinking=0.95, tilt_steps=30, tilt_rate=2e-3
        ),
        ((180, SHORT), (20, replace(SHORT, rate=5e-5))),
        seeds=(3, 4, 5),
    ),
    "parity": Trial(Parity(), partial(base, families=[Parity()], steps=200), ((60, SHORT),)),
    "division": Trial(
        SEARCH, partial(search, tilt_steps=30), ((60, LONG), (40, replace(LONG, rate=1e-4))), n_test=42
    ),
    "division, longer": Trial(
        SEARCH,
        partial(search, tilt_steps=40),
        ((80, LONGER), (40, replace(LONGER, rate=1e-4))),
        n_test=42,
        seeds=(3, 4, 5),
    ),
}


def summary(found: Evaluation) -> dict[str, Any]:
    """Accuracy and pass@k with intervals over problems, length, thinking, and what fewer tokens allow."""
    return {
        "accuracy": list(found.accuracy),
        "pass": {str(k): list(found.pass_at(k)) for k in (1, 2, 4, 8, 16)},
        # Answers come token by token: with a lower cap the same ones are cut off.
        "within": {
            str(cap): list(bootstrap((found.is_right & (found.tokens <= cap)).mean(axis=1))) for cap in CAPS
        },
        "tokens": found.mean_tokens,
        "cut_off": float(1 - found.stopped.mean()),
        "thinks": float(found.thinks.mean()),
        "right_when_thinking": float(found.is_right[found.thinks].mean()) if found.thinks.any() else None,
        "right_at_once": float(found.is_right[~found.thinks].mean()) if not found.thinks.all() else None,
    }


def run(name: str, seed: int) -> dict[str, Any]:
    """One family and seed: the base, the steps, what reward left, and the gain paired over problems."""
    trial, policy = TRIALS[name], new_policy(seed)
    for _ in trial.teach(policy, seed=seed):
        pass
    test, known = (
        draw_problems(trial.family, trial.n_test, 1, is_held_out=side, are_different=True)
        for side in (True, False)
    )
    ask = partial(evaluate, policy, answers=ANSWERS, max_new_tokens=trial.stages[0][1].max_new_tokens)
    before, before_known = ask(test), ask(known)
    steps: list[dict[str, Any]] = []
    for number, (count, recipe) in enumerate(trial.stages):  # each stage has questions of its own
        for row in r1_zero(policy, [trial.family], count, recipe=recipe, seed=seed + 100 * number):
            steps.append(row | {"step": len(steps) + 1})
    after, after_known = ask(test), ask(known)
    print(name, seed, before.accuracy, after.accuracy, flush=True)
    return {
        "before": summary(before) | {"training": list(before_known.accuracy)},
        "after": summary(after) | {"training": list(after_known.accuracy)},
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
    parser.add_argument("--trials", nargs="*", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--seeds", nargs="*", type=int, help="those of the trial if not given")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.trials:
        for seed in chosen.seeds or TRIALS[name].seeds:
            Records(RECORD, COMMAND).get({"family": name, "seed": seed}, partial(run, name, seed))


if __name__ == "__main__":
    main()
