"""A student from an interface that only answers: by number of queries, by what is asked, by what is shown.

    python -m workbench.distillation.extraction_study

Teacher and student's base are different networks of one size. The base has seen all three kinds of problem,
most in steps, and ended by answering at once; the client fine-tunes it on what the interface shows. Every
student gets the same steps, whatever it asked, so that only its texts differ. Seeds differ in problems asked,
in what the teacher drew, and the order of training; teacher and base are shared. Results are written one by
one, so a study that was broken off goes on.
"""

import argparse
import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.distillation.black_box import CHOICES, Interface
from workbench.distillation.scenes import TWO_LAYERS, documents
from workbench.model import Transformer
from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.pipelines import base
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.tasks import Addition, Family, ModularChain, Parity, draw_problems
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.distillation.extraction_study"
RECORD = FOLDER / "extraction.json"
FAMILIES: list[Family] = [
    Parity(bits=6, levels=(4, 5, 6)),
    ModularChain(modulus=5, operations=3, levels=(1, 2, 3)),
    Addition(digits=3, levels=(1, 2, 3)),
]
SEEDS = (20, 21, 22)
QUERIES = (25, 100, 400, 1600)
STEPS, N_TEST = 60, 60


@dataclass(frozen=True)
class Scene:
    """Who is asked, and what the client has to begin with."""

    teacher: Transformer
    base: Transformer


def scene(*, teacher_steps: int = 500, base_steps: int = 550, seed: int = 0) -> Scene:
    """A teacher that solves nearly all, in steps; a base that has seen the same and seldom takes steps."""
    teacher, student = (new_policy(seed + i, policy_config(64, **TWO_LAYERS)) for i in range(2))
    for _ in fine_tune(teacher, documents(FAMILIES, 9000, seed), teacher_steps, rows=10, seed=seed):
        pass
    tilt = max(base_steps // 18, 1)
    for _ in base(
        student, FAMILIES, base_steps, thinking=0.8, tilt_steps=tilt, tilted_thinking=0.05, seed=seed + 1
    ):
        pass
    return Scene(teacher, student)


def run(
    own: Scene, choice: str, reply: str, queries: int, seed: int, *, steps: int = STEPS, n_test: int = N_TEST
) -> dict[str, Any]:
    """Ask, pay, learn; the held-out accuracy on every kind of problem.

    Raises:
        ValueError: an unknown choice, or as `Interface.ask`.
    """
    if choice not in CHOICES:
        raise ValueError(f"run: got choice={choice!r}; needs one of {list(CHOICES)}; choose among those")
    interface = Interface(own.teacher, reply, seed=seed)
    texts = interface.ask(CHOICES[choice](FAMILIES, queries, seed, own.base))
    student = copy.deepcopy(own.base)
    for _ in fine_tune(student, texts, steps, rate=2e-3, rows=8, warmup_steps=5, seed=seed):
        pass
    return {
        "accuracy": accuracy(student, n_test),
        "prompt_tokens": interface.prompt_tokens,
        "written_tokens": interface.written_tokens,
        "shown_tokens": interface.shown_tokens,
    }


def accuracy(policy: Transformer, n_test: int) -> dict[str, float]:
    """Held-out pass@1 of every family, all levels alike."""
    found = {}
    for family in FAMILIES:
        problems = draw_problems(family, n_test, 1, is_held_out=True)
        found[family.name] = round(evaluate(policy, problems, max_new_tokens=16).accuracy.value, 4)
    return found


def settings() -> list[dict[str, Any]]:
    """Every student of the study."""
    few, many = QUERIES[1], QUERIES[-1]
    by_queries = [
        *(("covering", "whole", queries) for queries in QUERIES),
        *(("users", "whole", queries) for queries in (few, many)),
        *(("covering", "answer only", queries) for queries in (few, many)),
    ]
    others = [
        ("unsure", "whole", few),
        ("covering", "5 % of the steps' numbers altered", 400),
        ("covering", "20 % altered", 400),
        ("covering", "summary", 400),
        ("covering", "answer only", 400),
    ]
    return [
        {"choice": choice, "reply": reply, "queries": queries}
        for choice, reply, queries in (*by_queries, *others)
    ]


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Results by (choice, reply, queries, seed); teacher and base by their name, "", 0 and 0."""
    return Records(RECORD, COMMAND).by("choice", "reply", "queries", "seed")


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    records, own = Records(RECORD, COMMAND), scene()
    for name, policy in (("teacher", own.teacher), ("base", own.base)):
        key = {"choice": name, "reply": "", "queries": 0, "seed": 0}
        print(name, records.get(key, lambda: {"accuracy": accuracy(policy, 200)})["accuracy"], flush=True)  # noqa: B023
    for seed in SEEDS:
        for setting in settings():
            found = records.get({**setting, "seed": seed}, lambda: run(own, **setting, seed=seed))  # noqa: B023
            mean = float(np.mean(list(found["accuracy"].values())))
            print(*setting.values(), f"seed {seed}: {mean:.3f}", found["accuracy"], flush=True)


if __name__ == "__main__":
    main()
