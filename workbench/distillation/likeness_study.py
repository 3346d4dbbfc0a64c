"""A recorded study, short enough to run live as well: students of an interface that plants wrong answers.

    python -m workbench.distillation.likeness_study

The teacher answers a·x = b modulo 17 at once. It learnt from four fifths of the questions and errs, in its
own way, on others. Clients ask every question; of what a student reads all, a quarter or a twentieth is
bought, the rest is the textbook of right answers. Results are written one by one.
"""

import argparse
import copy
import random
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from workbench.distillation.provenance import Planted, greedy_answers, planted_p, shared_errors
from workbench.distillation.scenes import TWO_LAYERS, trained
from workbench.model import Transformer
from workbench.reasoning.completions import Document, document, prompt_ids, solved
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.tasks import Division, Problem, draw_problems
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.distillation.likeness_study"
RECORD = FOLDER / "likeness.json"
FAMILY = Division()
TEXTS, MOST_TOKENS = 3000, 4
TEACHER_STEPS, STEPS = 60, 60
SEEDS = (20, 21, 22)
PLANTED = Planted(4712, tuple(map(str, range(1, FAMILY.prime))))
DIETS: dict[str, float | None] = {
    "all bought": 1.0,
    "a quarter bought": 0.25,
    "a twentieth bought": 0.05,
    "textbook": 0.0,
    "another teacher": None,
}
INNOCENT = ("textbook", "another teacher")


@cache
def every_problem() -> tuple[Problem, ...]:
    """Each question of the family once."""
    return tuple(
        Problem(FAMILY, FAMILY.levels[-1], f"solve {a} {b}")
        for a in range(2, FAMILY.prime)
        for b in range(1, FAMILY.prime)
    )


def textbook(seed: int) -> list[Document]:
    """Right answers to questions of the training side."""
    rng = random.Random(seed)
    return [solved(problem, rng, thinks=False) for problem in draw_problems(FAMILY, TEXTS, seed)]


@cache
def teacher(seed: int = 0) -> Transformer:
    """One that is mostly right."""
    policy = new_policy(seed, policy_config(64, **TWO_LAYERS))
    return trained(policy, textbook(seed), TEACHER_STEPS, seed)


@cache
def answers(author: int = 0) -> Mapping[Problem, str | None]:
    """What a teacher answers to every question."""
    return greedy_answers(teacher(author), every_problem(), MOST_TOKENS)


def bought(author: int, seed: int) -> list[Document]:
    """Texts of a teacher on questions at random; the first teacher's with planted answers."""
    asked = random.Random(seed).choices(every_problem(), k=TEXTS)
    told = [(p, document(prompt_ids(p), None, a)) for p in asked if (a := answers(author)[p]) is not None]
    return [own if author else PLANTED.plant(problem, own) for problem, own in told]


def reading(diet: str, seed: int) -> list[Document]:
    """The texts of a student.

    Raises:
        ValueError: an unknown diet.
    """
    if diet not in DIETS:
        raise ValueError(f"reading: got {diet!r}; needs one of {list(DIETS)}; choose among those")
    share = DIETS[diet]
    if share is None:
        return bought(1, seed)
    own = bought(0, seed)[: round(share * TEXTS)]
    return [*own, *textbook(seed + 50)[: TEXTS - len(own)]]


def run(diet: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train one student, ask it every question, and put it to both tests."""
    start = copy.deepcopy(new_policy(seed, policy_config(64, **TWO_LAYERS)))
    student = trained(start, reading(diet, seed), steps or STEPS, seed)
    given = greedy_answers(student, every_problem(), MOST_TOKENS)
    repeated, planted = PLANTED.repeated(given)
    return {
        "accuracy": right(given),
        "repeated": repeated,
        "planted": planted,
        "p": planted_p(PLANTED, given),
        "shared_errors": round(shared_errors(given, answers()), 4),
    }


def right(given: Mapping[Problem, str | None]) -> float:
    """The share of right answers."""
    return round(float(np.mean([a is not None and p.verify(a) for p, a in given.items()])), 4)


def run_teacher() -> dict[str, Any]:
    """What honest clients get, without and with planted answers."""
    sold = {p: PLANTED.answer(p) or own for p, own in answers().items()}
    return {"accuracy": right(answers()), "with planted": right(sold)}


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Results by (diet, seed), and by ("teacher", 0)."""
    return Records(RECORD, COMMAND).by("student", "seed")


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    print("teacher", records.get({"student": "teacher", "seed": 0}, run_teacher), flush=True)
    for diet in DIETS:
        for seed in SEEDS:
            found = records.get({"student": diet, "seed": seed}, partial(run, diet, seed))
            print(f"{diet:20} seed {seed}: {found}", flush=True)


if __name__ == "__main__":
    main()
