"""Distillation beside TRL's GKDTrainer: the same V4 student and teacher, task and batch, one thread.

Reverse KL over the whole vocabulary (beta 1) on texts that the student writes (lambda 1). TRL's policies are
transformers' V4 class with our weights, its tokenizer our words. Fresh weights end an answer by chance, on
both sides alike.
"""

import copy
import tempfile
import time
from itertools import pairwise
from typing import Any

import torch
import transformers

from benchmarks.reasoning import PLAIN, StepTimes, peer_of, tokenizer
from benchmarks.timing import of_steps
from workbench.distillation.distil import DistilRecipe, Teacher, distil
from workbench.model import Transformer
from workbench.reasoning.completions import prompt_ids
from workbench.reasoning.policy import new_policy
from workbench.reasoning.recipe import Questions
from workbench.reasoning.tasks import Addition, draw_problems
from workbench.reasoning.vocabulary import END, VOCABULARY

PROBLEMS, NEW_TOKENS, STEPS = 64, 24, 3


def trl_step_s(student: torch.nn.Module, teacher: torch.nn.Module) -> list[float]:
    """Seconds of TRL's steps after the first."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    words = tokenizer()
    words.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    rows = [
        {"messages": [{"role": "user", "content": VOCABULARY.decode(prompt_ids(problem))},
                      {"role": "assistant", "content": END}]}
        for problem in draw_problems(Addition(), PROBLEMS * (STEPS + 1), seed=0)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = GKDConfig(
            output_dir=folder,
            per_device_train_batch_size=PROBLEMS,
            max_new_tokens=NEW_TOKENS,
            lmbda=1.0,
            beta=1.0,
            max_steps=STEPS + 1,
            **PLAIN,
        )
        watch = StepTimes()
        trainer = GKDTrainer(
            student,
            teacher_model=teacher,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=words,
            callbacks=[watch],
        )
        trainer.train()
    return [end - begin for begin, end in pairwise(watch.times)]


def our_step_s(student: Transformer, teacher: Transformer) -> list[float]:
    """Seconds of our steps after the first."""
    recipe = DistilRecipe(problems=PROBLEMS, max_new_tokens=NEW_TOKENS)
    teachers = {"teacher": Teacher(teacher, ("addition",))}
    times = [time.perf_counter()]
    for _ in distil(student, teachers, Questions([Addition()], 0), recipe, STEPS + 1):
        times.append(time.perf_counter())
    return [end - begin for begin, end in pairwise(times[1:])]


def run() -> list[dict[str, Any]]:
    """One row a pair of models; ratio is TRL's time over ours."""
    transformers.logging.set_verbosity_error()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        student, teacher = (new_policy(seed) for seed in (0, 1))
        theirs = trl_step_s(copy.deepcopy(peer_of(student)).train(), peer_of(teacher).eval())
        ours = our_step_s(student, teacher)
    finally:
        torch.set_num_threads(threads)
    return [
        {
            "measure": f"on-policy distillation step, {PROBLEMS} answers x {NEW_TOKENS} tokens",
            **of_steps(ours, theirs),
        }
    ]
