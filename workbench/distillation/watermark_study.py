"""Students of marked texts and innocent ones, under the tests of a watermark: a recorded study.

    python -m workbench.distillation.watermark_study

The teacher solves a·x = b modulo 17 by trying numbers; which it tries is left to chance, so that its texts
can carry a watermark. All students start from one base that has read the same kind of problem modulo 13.
Results are written one by one, so a study that was broken off goes on.
"""

import argparse
import copy
import random
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.distillation.radioactivity import (
    Excess,
    against,
    against_teacher,
    cells_of,
    distinct,
    green_excess,
    naive_p_values,
    p_values,
    plain,
    redrawn,
)
from workbench.distillation.scenes import TWO_LAYERS, documents, trained
from workbench.distillation.watermark import Watermark, is_green
from workbench.model import Transformer
from workbench.reasoning.completions import Document, prompt_ids
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rewards import is_right
from workbench.reasoning.rollout import Rollouts, sample
from workbench.reasoning.tasks import Division, Problem, draw_problems
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.distillation.watermark_study"
RECORD = FOLDER / "watermark.json"
FAMILY = Division()
TEXTS, ASKED, MOST_TOKENS = 3000, 600, 60
SEEDS = (20, 21, 22)
CONTROL_SEED = 19
KEY, WINDOW = 4711, 2
CHANCE_KEYS = 200  # keys that a suspect is tried under besides the one in use


class Diet(NamedTuple):
    """What a student reads: the share of texts that are marked, and how loudly."""

    delta: float
    share: float


DIETS: dict[str, Diet | None] = {
    "all marked, δ 4": Diet(4.0, 1.0),
    "a quarter marked, δ 4": Diet(4.0, 0.25),
    "unmarked": Diet(0.0, 1.0),
    "textbook": None,
}
"""Students by what they read. All but the last read the teacher."""


@cache
def teacher() -> Transformer:
    """One that is right most of the time, with errors of its own."""
    policy = new_policy(0, policy_config(64, **TWO_LAYERS))
    return trained(policy, documents([FAMILY], 6000, 0), 300, 0)


@cache
def base() -> Transformer:
    """What every student starts from."""
    policy = new_policy(7, policy_config(64, **TWO_LAYERS))
    return trained(policy, documents([Division(prime=13, levels=(4, 8, 12))], 3000, 7), 80, 7)


@cache
def asked() -> list[Problem]:
    """What clients of the teacher ask."""
    return draw_problems(FAMILY, TEXTS, 7)


@cache
def sold(delta: float) -> Rollouts:
    """The texts of the teacher, marked or not."""
    shift = Watermark(KEY, delta, WINDOW) if delta else None
    prompts = [prompt_ids(problem) for problem in asked()]
    return sample(teacher(), prompts, 1, MOST_TOKENS, seed=3 + int(delta), shift=shift)


def as_documents(rollouts: Rollouts) -> list[Document]:
    """Prompt and answer of every row."""
    return [
        Document(rollouts.prompt(i) + rollouts.tokens[i], len(rollouts.prompt(i)))
        for i in range(len(rollouts))
    ]


def reading(diet: str, seed: int) -> list[Document]:
    """The texts of a student."""
    if diet not in DIETS:
        raise ValueError(f"reading: got {diet!r}; needs one of {list(DIETS)}; choose among those")
    chosen = DIETS[diet]
    if chosen is None:
        return documents([FAMILY], TEXTS, 30)
    clean, marked = (as_documents(sold(delta)) for delta in (0.0, chosen.delta))
    order = list(range(TEXTS))
    random.Random(seed).shuffle(order)
    is_marked = set(order[: round(chosen.share * TEXTS)]) if chosen.delta else set()
    return [marked[i] if i in is_marked else clean[i] for i in range(TEXTS)]


def texts_of(diet: str, seed: int, steps: int = 100) -> tuple[list[Problem], Rollouts]:
    """What a student writes: the problems it is asked, and its texts."""
    student = trained(copy.deepcopy(base()), reading(diet, seed), steps, seed)
    held = draw_problems(FAMILY, ASKED, seed + 1000)
    return held, sample(student, [prompt_ids(problem) for problem in held], 1, MOST_TOKENS, seed=seed)


@cache
def control() -> Rollouts:
    """Texts of a student that the teacher's owner trained for comparison: of unmarked texts, another seed."""
    return texts_of("unmarked", CONTROL_SEED)[1]


def run(diet: str, seed: int, steps: int = 100) -> dict[str, Any]:
    """Train one student and put its texts to every test."""
    held, texts = texts_of(diet, seed, steps)
    return {
        "accuracy": share_right(held, texts.tokens),
        **watermark_tests(texts, seed),
        **({"excess": _packed(texts)} if seed == SEEDS[0] else {}),
    }


def excesses(texts: Rollouts) -> dict[str, Excess]:
    """What a suspect said, by what is subtracted from it."""
    vocabulary = teacher().v4.vocab_size
    seen = cells_of(texts, WINDOW, vocabulary)
    return {
        "plain": plain(seen),
        "distinct": distinct(seen),
        "control": against(seen, cells_of(control(), WINDOW, vocabulary)),
        "expected": against_teacher(texts, teacher(), WINDOW),
    }


def watermark_tests(texts: Rollouts, seed: int) -> dict[str, Any]:
    """z and p under the key in use, and p under keys that had no part in anything."""
    found = excesses(texts)
    chance = redrawn(CHANCE_KEYS, seed + 100)
    row: dict[str, Any] = {}
    for name, excess in found.items():
        row[name] = {
            "z": round(float(green_excess(excess, [KEY])[0]), 3),
            "p": round(float(p_values(excess, [KEY])[0]), 4),
            "chance": [round(float(p), 3) for p in p_values(excess, chance)],
        }
    both = np.concatenate([[np.uint64(KEY)], chance])
    naive = naive_p_values(found["plain"], both)
    green = is_green([KEY], found["plain"].cells)[0] @ found["plain"].weight / found["plain"].weight.sum()
    row["naive"] = {"p": float(naive[0]), "chance": [round(float(p), 3) for p in naive[1:]]}
    return {**row, "green": round(float(green), 4), "words": int(found["plain"].weight.sum())}


def _packed(texts: Rollouts) -> dict[str, list[Any]]:
    """The excess over the control, to be tested again wherever it is read."""
    excess = excesses(texts)["control"]
    big = np.abs(excess.weight) >= 0.5
    return {"cells": excess.cells[big].tolist(), "weight": np.round(excess.weight[big], 2).tolist()}


def share_right(problems: Sequence[Problem], answers: Sequence[Sequence[int]]) -> float:
    """How many answers are right."""
    return round(float(np.mean([is_right(p, ids) for p, ids in zip(problems, answers, strict=True)])), 4)


def run_interface(delta: float) -> dict[str, Any]:
    """What honest clients get: the share of right answers, their length, and how green they are."""
    texts = sold(delta)
    cells = plain(cells_of(texts, WINDOW, teacher().v4.vocab_size))
    green = is_green([KEY], cells.cells)[0] @ cells.weight / cells.weight.sum()
    return {
        "accuracy": share_right(asked(), texts.tokens),
        "tokens": round(texts.n_tokens / len(texts), 2),
        "green": round(float(green), 4),
    }


def read_study() -> dict[tuple[str, int], dict[str, Any]]:
    """Results by (diet, seed), and by ("interface, δ 0", 0) and so on."""
    rows = Records(RECORD, COMMAND).found.values()
    return {(row["settings"]["student"], row["settings"]["seed"]): row["result"] for row in rows}


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    for delta in (0.0, 2.0, 4.0):
        key = {"student": f"interface, δ {delta:g}", "seed": 0}
        found = records.get(key, lambda: run_interface(delta))  # noqa: B023
        print(f"{key['student']:24} right {found['accuracy']:.3f}", flush=True)
    for diet in DIETS:
        # One reader of the textbook: it never met the teacher.
        for seed in SEEDS if DIETS[diet] else SEEDS[:1]:
            found = records.get({"student": diet, "seed": seed}, lambda: run(diet, seed))  # noqa: B023
            test = found["control"]
            print(
                f"{diet:24} seed {seed}: z {test['z']:.1f}, {found['expected']['z']:.1f}, p {test['p']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
