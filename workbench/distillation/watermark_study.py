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
from functools import cache, partial
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
COMMON_KEYS = 1000  # keys that several suspects are tried under together
LINE = 1.645  # z that one innocent in twenty passes


class Diet(NamedTuple):
    """What a student reads: how loudly texts are marked, their share, and how many words of context count."""

    delta: float
    share: float
    window: int = WINDOW


DIETS: dict[str, Diet | None] = {
    "all marked, δ 4": Diet(4.0, 1.0),
    "a quarter marked, δ 4": Diet(4.0, 0.25),
    "a twentieth marked, δ 4": Diet(4.0, 0.05),
    "all marked, δ 4, one word": Diet(4.0, 1.0, 1),
    "unmarked": Diet(0.0, 1.0),
    "textbook": None,
}
"""Students by what they read. All but the last read the teacher."""
INTERFACES = {
    "δ 0": Diet(0.0, 1.0),
    "δ 2": Diet(2.0, 1.0),
    "δ 4": Diet(4.0, 1.0),
    "δ 4, one word": Diet(4.0, 1.0, 1),
}
"""What is sold, by its mark."""


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
def sold(delta: float, window: int = WINDOW) -> Rollouts:
    """The texts of the teacher, marked or not."""
    shift = Watermark(KEY, delta, window) if delta else None
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
    clean = as_documents(sold(0.0))
    marked = as_documents(sold(chosen.delta, chosen.window)) if chosen.delta else clean
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
    chosen = DIETS[diet]
    found = excesses(texts, chosen.window if chosen else WINDOW)
    return {
        "accuracy": share_right(held, texts.tokens),
        **watermark_tests(found, seed),
        **({"excess": _packed(found["control"])} if seed == SEEDS[0] else {}),
    }


def excesses(texts: Rollouts, window: int = WINDOW) -> dict[str, Excess]:
    """What a suspect said, by what is subtracted from it."""
    vocabulary = teacher().v4.vocab_size
    seen = cells_of(texts, window, vocabulary)
    return {
        "plain": plain(seen),
        "distinct": distinct(seen),
        "control": against(seen, cells_of(control(), window, vocabulary)),
        "expected": against_teacher(texts, teacher(), window),
    }


def watermark_tests(found: dict[str, Excess], seed: int) -> dict[str, Any]:
    """z and p under the key in use, and p under keys that had no part in anything."""
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
    row["naive"] = {"p": float(naive[0]), "chance": [round(float(p), 3) for p in naive[1:]]}
    return {**row, "green": green_share(found["plain"]), "words": int(found["plain"].weight.sum())}


def run_together(diet: str) -> dict[str, float]:
    """Students of one diet and several seeds under the same redrawn keys: are they accused together?

    `correlation` is of their z over keys; `one` is how often one of them is past the 5 % line, `all` how
    often all are.
    """
    keys = redrawn(COMMON_KEYS, 0)
    z = np.array([green_excess(excesses(texts_of(diet, s)[1])["expected"], keys) for s in SEEDS])
    is_past = z >= LINE
    between = np.corrcoef(z)[np.triu_indices(len(z), 1)]
    found = {"correlation": between.mean(), "one": is_past.mean(), "all": is_past.all(axis=0).mean()}
    return {name: round(float(value), 4) for name, value in found.items()}


def green_share(seen: Excess) -> float:
    """How many of the words are green under the key in use."""
    return round(float(is_green([KEY], seen.cells)[0] @ seen.weight / seen.weight.sum()), 4)


def _packed(excess: Excess) -> dict[str, list[Any]]:
    """An excess, to be tested again wherever it is read."""
    big = np.abs(excess.weight) >= 0.5
    return {"cells": excess.cells[big].tolist(), "weight": np.round(excess.weight[big], 2).tolist()}


def share_right(problems: Sequence[Problem], answers: Sequence[Sequence[int]]) -> float:
    """How many answers are right."""
    return round(float(np.mean([is_right(p, ids) for p, ids in zip(problems, answers, strict=True)])), 4)


def run_interface(mark: Diet) -> dict[str, Any]:
    """What honest clients get: the share of right answers, their length, and how green they are."""
    texts = sold(mark.delta, mark.window)
    return {
        "accuracy": share_right(asked(), texts.tokens),
        "tokens": round(texts.n_tokens / len(texts), 2),
        "green": green_share(plain(cells_of(texts, mark.window, teacher().v4.vocab_size))),
    }


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Results by (diet, seed), by ("interface, δ 0", 0) and so on, and by ("textbook, together", 0)."""
    return Records(RECORD, COMMAND).by("student", "seed")


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    for name, mark in INTERFACES.items():
        key = {"student": f"interface, {name}", "seed": 0}
        found = records.get(key, partial(run_interface, mark))
        print(f"{key['student']:24} right {found['accuracy']:.3f}", flush=True)
    for diet in ("unmarked", "textbook"):
        key = {"student": f"{diet}, together", "seed": 0}
        print(f"{key['student']:24}", records.get(key, partial(run_together, diet)), flush=True)
    for diet in DIETS:
        for seed in SEEDS:
            found = records.get({"student": diet, "seed": seed}, partial(run, diet, seed))
            test = found["control"]
            print(
                f"{diet:24} seed {seed}: z {test['z']:.1f}, {found['expected']['z']:.1f}, p {test['p']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
