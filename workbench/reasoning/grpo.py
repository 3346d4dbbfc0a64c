"""Reinforcement learning from checkable rewards: draw groups of answers, reward them, follow the gradient.

    for every step:  problems -> sample groups -> rewards -> advantages -> one or more updates

A killed run goes on from its last checkpoint as if nothing had happened: which problems a step has, and
which random numbers, follow from the seed and the step.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from workbench.model import Transformer
from workbench.reasoning.experience import Experience, Reference, gather, live_rows, mean, update
from workbench.reasoning.recipe import Questions, RLRecipe
from workbench.reasoning.tasks.problem import Problem
from workbench.training.parameter_groups import make_optimizers
from workbench.training.run_state import RunState, restore, save

__all__ = ["Questions", "RLRecipe", "train_policy"]

Gather = Callable[[Transformer, Sequence[Problem], RLRecipe, int], Experience]


def train_policy(
    policy: Transformer,
    questions: Questions,
    recipe: RLRecipe,
    steps: int,
    *,
    folder: str | Path | None = None,
    checkpoint_every: int = 20,
    gather: Gather = gather,
) -> Generator[dict[str, Any], None, None]:
    """Train in place and yield each step's numbers; go on from `folder` if it holds a checkpoint.

    A row has step, reward, accuracy, form, thinks, language (shares), tokens (mean length), tokens_right
    and tokens_wrong, entropy (nats a token), dead (share of groups without a difference), truncated,
    clipped and masked (shares), kl, grad_norm, draws, sample_s, train_s and the answers drawn so far.

    Args:
        gather: draws and rewards a step's answers; `agent.gather_talks` gives the policy a tool.

    Raises:
        ValueError: the checkpoint is of another run, or is damaged.
    """
    optimizers: list[torch.optim.Optimizer] = (
        make_optimizers(policy, recipe.rate)
        if recipe.optimizer == "muon"
        else [torch.optim.AdamW(policy.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)]
    )
    reference = Reference(policy) if recipe.loss.kl_weight > 0 else None
    parts: Mapping[str, Any] = {} if reference is None else {"reference": reference}
    families = [family.name for family in questions.families]
    identity = {
        "model": policy.config.to_dict(),
        "recipe": {**asdict(recipe), "rules": repr(recipe.rules)},
        "questions": {"families": families, "levels": questions.levels, "seed": questions.seed},
        "gather": gather.__name__,
    }
    state = RunState(policy, optimizers, questions, identity, parts=parts)  # type: ignore[arg-type]
    if folder is not None:
        restore(state, Path(folder))
    policy.train()
    while state.step < steps:
        if reference is not None and state.step and state.step % recipe.renew_reference == 0:
            reference.renew(policy)
        row = _step(state, questions, recipe, reference, gather)
        state.step += 1
        state.tokens += row.pop("n_answers")
        if folder is not None and (state.step % checkpoint_every == 0 or state.step == steps):
            save(state, Path(folder))
        yield {"step": state.step, "answers": state.tokens, **row}


def _step(
    state: RunState,
    questions: Questions,
    recipe: RLRecipe,
    reference: Reference | None,
    gather: Gather,
) -> dict[str, Any]:
    policy, begun = state.model, time.perf_counter()
    for group in (group for optimizer in state.optimizers for group in optimizer.param_groups):
        group["lr"] = recipe.rate * min(1.0, (state.step + 1) / max(recipe.warmup_steps, 1))
    rounds: list[Experience] = []
    rows: list[tuple[Experience, int]] = []  # the answers to learn from
    wanted = recipe.questions * recipe.group_size
    for _ in range(recipe.most_draws):
        seed = questions.seed * 1_000_003 + questions.position
        drawn = gather(policy, questions.take(recipe.questions), recipe, seed)
        rounds.append(drawn)
        live = live_rows(drawn) if recipe.most_draws > 1 else list(range(len(drawn.scores)))
        rows += [(drawn, row) for row in live]
        if len(rows) >= wanted:
            break
    rows = rows[:wanted]
    rows += [(own, row) for drawn in rounds for own in drawn.later for row in range(len(own.rollouts))]
    sample_s = time.perf_counter() - begun

    begun = time.perf_counter()
    noted = update(policy, rows, recipe, state.optimizers, reference)
    scores = [score for drawn in rounds for score in drawn.scores]
    n, groups = len(scores), sum(len(drawn.scores) for drawn in rounds) // recipe.group_size
    alive = sum(len(live_rows(drawn)) for drawn in rounds) // recipe.group_size
    stopped = [stop for drawn in rounds for stop in drawn.rollouts.stopped]
    return {
        "reward": sum(score.reward for score in scores) / n,
        "accuracy": sum(score.is_right for score in scores) / n,
        "form": sum(score.is_well_formed for score in scores) / n,
        "thinks": sum(score.thinks for score in scores) / n,
        "language": sum(score.language for score in scores) / n,
        "tokens": sum(score.tokens for score in scores) / n,
        "tokens_right": mean([score.tokens for score in scores if score.is_right]),
        "tokens_wrong": mean([score.tokens for score in scores if not score.is_right]),
        "truncated": 1 - sum(stopped) / n,
        "dead": 1 - alive / groups,
        **noted,
        "draws": len(rounds),
        "sample_s": sample_s,
        "train_s": time.perf_counter() - begun,
        "n_answers": n,
    }
