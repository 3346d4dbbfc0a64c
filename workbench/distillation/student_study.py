"""Students of several sizes, dense and of V4's build, of one teacher's texts: a recorded study.

    python -m workbench.distillation.student_study

R1's way: the teacher's right answers to a fixed set of questions, read more than once. Beside it the same
student under reward alone, with as much work. Every seed has a base of its own, which has read the same kind
of problem modulo 3: it knows the form and not the rule. Results are written one by one.

Report: DeepSeek-R1 (arXiv 2501.12948), section 2.4.
"""

import argparse
import copy
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from workbench import accounting
from workbench.config import ModelConfig
from workbench.distillation.scenes import TWO_LAYERS, documents, reinforce, supervised_flop, trained
from workbench.model import Transformer
from workbench.reasoning.completions import Document
from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.pipelines import ZERO, rejection_sampled
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.tasks import ModularChain, draw_problems
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.distillation.student_study"
RECORD = FOLDER / "students.json"
FAMILY = ModularChain(modulus=5, operations=3, levels=(2, 3))
OTHER = ModularChain(modulus=3, operations=3, levels=(2, 3))
RECIPE = replace(ZERO, max_new_tokens=16)
SEEDS = (20, 21, 22)
N_ASKED, TEACHER_STEPS, BASE_STEPS, STEPS, N_TEST = 4000, 300, 100, 200, 150
V4 = "V4's build"


def dense(width: int) -> ModelConfig:
    """Two layers and one expert, which every token takes."""
    return policy_config(width, **TWO_LAYERS, n_routed_experts=1, num_experts_per_tok=1)


STUDENTS: dict[str, ModelConfig] = {
    **{f"dense, width {width}": dense(width) for width in (16, 32, 64)},
    V4: policy_config(),
}
"""By name; the last is built as the teacher is, with two of four experts for a token."""


@cache
def teacher() -> Transformer:
    """A V4 that is right in nearly all cases."""
    return trained(new_policy(0), documents([FAMILY], N_ASKED, 0), TEACHER_STEPS, 0)


@cache
def texts() -> tuple[Document, ...]:
    """One answer of the teacher to each question, where it is right."""
    asked = draw_problems(FAMILY, N_ASKED, 7)
    return tuple(rejection_sampled(teacher(), asked, RECIPE, answers=1, seed=7))


def accuracy(policy: Transformer) -> float:
    """Held-out pass@1; the problems are the same for all."""
    held_out = draw_problems(FAMILY, N_TEST, 1, is_held_out=True)
    most = RECIPE.max_new_tokens
    return round(evaluate(policy.eval(), held_out, answers=2, max_new_tokens=most).accuracy.value, 4)


def run(name: str, seed: int) -> dict[str, Any]:
    """One student of one seed: its base, after the teacher's texts, and after as much work under reward."""
    config = STUDENTS[name]
    base = trained(new_policy(seed, config), documents([OTHER], N_ASKED, seed), BASE_STEPS, seed)
    reader, explorer = copy.deepcopy(base), copy.deepcopy(base)
    trained(reader, texts(), STEPS, seed)
    flop = supervised_flop(config, STEPS)
    reinforce(explorer, [FAMILY], RECIPE, 2000, seed, flop)
    return {
        "total": accounting.parameters(config).total,
        "active": accounting.parameters(config).active,
        "before": accuracy(base),
        "texts": accuracy(reader),
        "reward": accuracy(explorer),
        "flop": flop,
    }


def run_teacher() -> dict[str, Any]:
    """The teacher's size and accuracy, and what it sold."""
    found = accounting.parameters(teacher().config)
    tokens = sum(len(own.ids) - own.prompt_tokens for own in texts())
    sizes = {"total": found.total, "active": found.active}
    return {**sizes, "accuracy": accuracy(teacher()), "texts": len(texts()), "text_tokens": tokens}


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Results by (student, seed), and by ("teacher", 0)."""
    return Records(RECORD, COMMAND).by("student", "seed")


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    records = Records(RECORD, COMMAND)
    print("teacher", records.get({"student": "teacher", "seed": 0}, run_teacher), flush=True)
    for seed in SEEDS:
        for name in STUDENTS:
            found = records.get({"student": name, "seed": seed}, partial(run, name, seed))
            print(f"{name:16} seed {seed}: {found}", flush=True)


if __name__ == "__main__":
    main()
