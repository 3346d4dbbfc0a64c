"""Distillation: a student learns from one teacher or many, on its own texts or on theirs.

    for every step:  problems -> who draws the answers -> what their teachers say of them -> one update

    L(θ) = Σ_i w_i KL(π_θ ‖ π_Ei) on the student's own answers             V4's on-policy distillation (OPD)

Each problem goes to the teachers of its family. A killed run goes on from its last checkpoint as if nothing
had happened.

Report: V4 section 5.1.2, equation 29; GKD (arXiv 2306.13649) for the mixture of texts.
"""

import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.distillation.chunked import linear_divergence
from workbench.distillation.divergences import REVERSE, sampled_loss
from workbench.distillation.spending import Spending
from workbench.distillation.teacher_states import Heads, TeacherStates, answer_states
from workbench.model import Transformer
from workbench.reasoning.completions import prompt_ids
from workbench.reasoning.recipe import Questions
from workbench.reasoning.rewards import is_right
from workbench.reasoning.rollout import Rollouts, fingerprint, sample
from workbench.reasoning.scoring import token_logprobs
from workbench.reasoning.tasks.problem import Problem
from workbench.training.parameter_groups import make_optimizers
from workbench.training.run_state import RunState, restore, save


@dataclass(frozen=True)
class Teacher:
    """A policy, the names of the families that it teaches, and its weight w_i."""

    policy: Transformer
    families: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class DistilRecipe:
    """How to distil: what must not change when a run is resumed.

    Args:
        objective: "full" divergence over the vocabulary, "sampled" (the one-token estimate of reverse KL), or
            "sequence": only the tokens of the texts are learnt, as from an interface that shows no logits.
        beta: of "full": 1 reverse KL, 0 forward KL, JSD between.
        student_share: of the answers that the student draws itself; teachers draw the others.
        discount: of "sampled": how far a token is charged for later ones.
        right_only: of "sequence": learn only from texts whose answer passes its family's check (rejection
            sampling, as for R1's students). A step in which none does changes nothing.
        problems: of a step, one answer to each.
        optimizer: AdamW for students that can nearly do it (more than 3e-4 takes them apart), Muon (with ten
            times the rate) for those that must learn much.
        system: words before every question.
    """

    objective: Literal["full", "sampled", "sequence"] = "full"
    beta: float = REVERSE
    student_share: float = 1.0
    discount: float = 0.0
    right_only: bool = False
    problems: int = 64
    max_new_tokens: int = 24
    rate: float = 3e-4
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup_steps: int = 5
    clip_norm: float = 1.0
    system: str = ""

    def __post_init__(self) -> None:
        if self.problems < 1 or not 0 <= self.student_share <= 1 or not 0 <= self.beta <= 1:
            raise ValueError(
                f"DistilRecipe: got problems={self.problems}, student_share={self.student_share}, beta="
                f"{self.beta}; needs 1 problem or more and shares in 0..1; correct the one outside"
            )
        if self.right_only and self.objective != "sequence":
            raise ValueError(
                f"DistilRecipe: got right_only with objective={self.objective!r}; only the texts of "
                f"'sequence' are rejected; leave it out"
            )


OPD = DistilRecipe()
OBJECTIVES: dict[str, DistilRecipe] = {
    "OPD, full vocabulary": OPD,
    "OPD, one token": DistilRecipe(objective="sampled"),
    "GKD, JSD(½), half own": DistilRecipe(beta=0.5, student_share=0.5),
    "forward KL, teacher's texts": DistilRecipe(beta=0.0, student_share=0.0),
    "teacher's texts alone": DistilRecipe(objective="sequence", student_share=0.0),
    "teacher's right texts": DistilRecipe(objective="sequence", student_share=0.0, right_only=True),
}
"""The published choices, by name. V4's is the first; R1's small models learnt by the last."""


def distil(
    student: Transformer,
    teachers: Mapping[str, Teacher],
    questions: Questions,
    recipe: DistilRecipe,
    steps: int,
    *,
    folder: str | Path | None = None,
    checkpoint_every: int = 20,
) -> Generator[dict[str, Any], None, None]:
    """Train the student in place and yield each step's numbers; go on from `folder` if it holds a checkpoint.

    A row has step, loss (of the objective, a token), tokens (mean length), grad_norm, s, and the run's
    spending so far: teacher_tokens, drawn and scored, and flop. A full divergence adds head_loads,
    state_bytes and logit_bytes (what teachers' answers took, and would have as logits), a sequence kept
    (texts learnt from).

    Raises:
        ValueError: a family without a teacher, or the checkpoint is of another run, or is damaged.
        FloatingPointError: the gradient is not finite; the student is left as before the step.
    """
    _check(teachers, questions)
    if recipe.optimizer == "muon":
        optimizers = make_optimizers(student, recipe.rate)
    else:
        optimizers = [
            torch.optim.AdamW(student.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)
        ]
    spending = Spending()
    state = RunState(
        student,
        optimizers,
        questions,  # type: ignore[arg-type]
        _identity(student, teachers, questions, recipe),
        parts={"spending": spending},
    )
    if folder is not None:
        restore(state, Path(folder))
    while state.step < steps:
        row = _step(state, teachers, questions, recipe, spending)
        state.step += 1
        state.tokens += row.pop("n_tokens")
        if folder is not None and (state.step % checkpoint_every == 0 or state.step == steps):
            save(state, Path(folder))
        yield {"step": state.step, **row, **spending.row}


def _check(teachers: Mapping[str, Teacher], questions: Questions) -> None:
    taught = {family for teacher in teachers.values() for family in teacher.families}
    alone = [family.name for family in questions.families if family.name not in taught]
    if alone:
        raise ValueError(
            f"distil: got no teacher for {alone}; needs one or more for every family; add a "
            f"Teacher that names it"
        )


def _identity(
    student: Transformer, teachers: Mapping[str, Teacher], questions: Questions, recipe: DistilRecipe
) -> dict[str, Any]:
    who = {name: [fingerprint(t.policy), list(t.families), t.weight] for name, t in sorted(teachers.items())}
    what = {
        "families": [f.name for f in questions.families],
        "levels": questions.levels,
        "seed": questions.seed,
    }
    return {"model": student.config.to_dict(), "recipe": asdict(recipe), "teachers": who, "questions": what}


def _step(
    state: RunState,
    teachers: Mapping[str, Teacher],
    questions: Questions,
    recipe: DistilRecipe,
    spending: Spending,
) -> dict[str, Any]:
    begun, student = time.perf_counter(), state.model
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, (state.step + 1) / max(recipe.warmup_steps, 1))
    seed = questions.seed * 1_000_003 + questions.position
    problems = questions.take(recipe.problems)
    rollouts, authors = draw_answers(student, teachers, problems, recipe, seed, spending)
    student.train()
    loss, seen = _loss(student, teachers, problems, rollouts, authors, recipe, spending)
    norm = float(nn.utils.clip_grad_norm_(student.parameters(), recipe.clip_norm))
    if not norm < float("inf"):
        student.zero_grad()
        raise FloatingPointError(
            f"distil: step {state.step + 1} has a gradient of norm {norm}; it must be finite; go back to a "
            f"checkpoint with a lower rate"
        )
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    n_tokens = rollouts.n_tokens
    return {
        "loss": loss,
        "tokens": n_tokens / len(rollouts),
        "grad_norm": norm,
        **seen,
        "s": time.perf_counter() - begun,
        "n_tokens": n_tokens,
    }


def draw_answers(
    student: Transformer,
    teachers: Mapping[str, Teacher],
    problems: Sequence[Problem],
    recipe: DistilRecipe,
    seed: int,
    spending: Spending,
) -> tuple[Rollouts, list[str]]:
    """One answer to each problem, and who wrote it: a teacher's name, or "" for the student.

    Whoever writes is left in eval mode.
    """
    rng = random.Random(seed)
    prompts = [prompt_ids(problem, recipe.system) for problem in problems]
    authors = [
        "" if rng.random() < recipe.student_share else rng.choice(_taught_by(teachers, problem))
        for problem in problems
    ]
    tokens: list[list[int]] = [[] for _ in problems]
    logprobs: list[list[float]] = [[] for _ in problems]
    stopped = [False] * len(problems)
    for name in sorted(set(authors)):
        rows = [row for row, own in enumerate(authors) if own == name]
        author = teachers[name].policy if name else student
        drawn = sample(author.eval(), [prompts[row] for row in rows], 1, recipe.max_new_tokens, seed=seed)
        for place, row in enumerate(rows):
            tokens[row], logprobs[row] = drawn.tokens[place], drawn.logprobs[place]
            stopped[row] = drawn.stopped[place]
        spending.draw(author, drawn, is_teacher=bool(name))
    return Rollouts(prompts, 1, tokens, logprobs, stopped), authors


def _taught_by(teachers: Mapping[str, Teacher], problem: Problem) -> list[str]:
    return [name for name, teacher in sorted(teachers.items()) if problem.family.name in teacher.families]


def _loss(
    student: Transformer,
    teachers: Mapping[str, Teacher],
    problems: Sequence[Problem],
    rollouts: Rollouts,
    authors: Sequence[str],
    recipe: DistilRecipe,
    spending: Spending,
) -> tuple[float, dict[str, float]]:
    """The loss a token, with its gradients added to the student's."""
    if recipe.objective == "sequence":
        rows = [
            row
            for row, problem in enumerate(problems)
            if not recipe.right_only or is_right(problem, rollouts.tokens[row])
        ]
        spending.train(student, rollouts, rows)
        if not rows:
            return 0.0, {"kept": 0}
        scored = token_logprobs(student, rollouts, rows)
        loss = -(scored.logprobs * scored.mask).sum() / scored.mask.sum()
        loss.backward()
        return loss.item(), {"kept": len(rows)}
    spending.train(student, rollouts, range(len(rollouts)))
    rows_of = {
        name: [row for row, problem in enumerate(problems) if problem.family.name in teacher.families]
        for name, teacher in sorted(teachers.items())
    }
    rows_of = {name: rows for name, rows in rows_of.items() if rows}
    for name, rows in rows_of.items():
        spending.score(teachers[name].policy, rollouts, [row for row in rows if authors[row] != name])
    if recipe.objective == "sampled":
        return _sampled(student, teachers, rows_of, rollouts, recipe), {}
    states = TeacherStates()
    for name, rows in rows_of.items():
        states.read(name, teachers[name].policy.eval(), rollouts, rows)
    heads = Heads({name: teachers[name].policy.lm_head.weight.detach for name in rows_of})
    # The student reads the batch once; its states are cut up by row and put together by teacher.
    own = answer_states(student, rollouts, range(len(rollouts))).split([len(row) for row in rollouts.tokens])
    losses = []
    for name, rows, kept in states.by_teacher():
        x = torch.cat([own[row] for row in rows])
        share = torch.full((len(x),), teachers[name].weight / rollouts.n_tokens, device=x.device)
        losses.append(
            linear_divergence(x, student.lm_head.weight, kept, heads[name], share, beta=recipe.beta)
        )
    loss = torch.stack(losses).sum()
    loss.backward()
    logits = states.logit_bytes(student.v4.vocab_size)
    return loss.item(), {"head_loads": heads.loads, "state_bytes": states.n_bytes, "logit_bytes": logits}


def _sampled(
    student: Transformer,
    teachers: Mapping[str, Teacher],
    rows_of: Mapping[str, list[int]],
    rollouts: Rollouts,
    recipe: DistilRecipe,
) -> float:
    """The one-token objective; -> the mean log-ratio, which estimates the same KL."""
    total = 0.0
    for name, rows in rows_of.items():
        with torch.no_grad():
            theirs: Tensor = token_logprobs(teachers[name].policy.eval(), rollouts, rows).logprobs
        own = token_logprobs(student, rollouts, rows)
        each = sampled_loss(own.logprobs, theirs, own.mask, discount=recipe.discount)
        (teachers[name].weight * each.sum() / rollouts.n_tokens).backward()
        ratio = ((own.logprobs.detach() - theirs) * own.mask).sum().item()
        total += teachers[name].weight * ratio / rollouts.n_tokens
    return total
