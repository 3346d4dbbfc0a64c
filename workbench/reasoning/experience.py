"""One step's answers, and the optimiser steps that learn from them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workbench.model import Transformer
from workbench.reasoning.completions import prompt_ids
from workbench.reasoning.losses import advantages, policy_loss
from workbench.reasoning.recipe import RLRecipe
from workbench.reasoning.rewards import Score
from workbench.reasoning.rollout import Rollouts, sample
from workbench.reasoning.scoring import sampled_logprobs, token_logprobs
from workbench.reasoning.tasks.problem import Problem


@dataclass
class Experience:
    """One step's answers, what they earned, and their advantages.

    `later` holds what the policy wrote after a tool had answered, under the advantage of the same answer.
    """

    rollouts: Rollouts
    scores: list[Score]
    advantage: Tensor
    later: list["Experience"] = field(default_factory=list)


def gather(policy: Transformer, problems: Sequence[Problem], recipe: RLRecipe, seed: int) -> Experience:
    """Draw answers to problems and reward them."""
    rollouts = sample(
        policy,
        [prompt_ids(problem, recipe.system) for problem in problems],
        recipe.group_size,
        recipe.max_new_tokens,
        sampling=recipe.sampling,
        seed=seed,
        keep_routes=recipe.keep_routes,
    )
    scores = [
        recipe.rules.score(problems[row // recipe.group_size], tokens)
        for row, tokens in enumerate(rollouts.tokens)
    ]
    rewards = torch.tensor([score.reward for score in scores], device=policy.device)
    return Experience(rollouts, scores, advantages(rewards, recipe.group_size, recipe.loss.scale))


class Reference(nn.Module):
    """The policy as it was, for the KL. A part of a run: its weights travel in checkpoints."""

    def __init__(self, policy: Transformer):
        super().__init__()
        self.policy = copy.deepcopy(policy).requires_grad_(False)

    def renew(self, policy: Transformer) -> None:
        self.policy.load_state_dict(policy.state_dict())


def live_rows(drawn: Experience) -> list[int]:
    """The answers of groups whose rewards differ: only they have a gradient."""
    rewards = torch.tensor([score.reward for score in drawn.scores]).unflatten(
        0, (-1, drawn.rollouts.group_size)
    )
    differs = (rewards.amax(dim=1) > rewards.amin(dim=1)).repeat_interleave(drawn.rollouts.group_size)
    return differs.nonzero()[:, 0].tolist()


MICRO_ROWS = 128  # answers of one forward pass, of similar length


def update(
    policy: Transformer,
    rows: Sequence[tuple[Experience, int]],
    recipe: RLRecipe,
    optimizers: Sequence[torch.optim.Optimizer],
    reference: Reference | None,
) -> dict[str, float]:
    """One or more optimiser steps on these answers; -> what happened, as means."""
    totals = {"clipped": 0.0, "kl": 0.0, "masked": 0.0, "tokens": 0.0, "entropy": 0.0}
    norms = []
    # Answers without advantage have no gradient unless a KL pulls them: they are counted, not computed.
    useful = [
        (drawn, row) for drawn, row in rows if recipe.loss.kl_weight > 0 or bool(drawn.advantage[row] != 0)
    ]
    is_stale = recipe.minibatches > 1 and recipe.old == "trainer"
    old = _old_logprobs(policy, useful, recipe) if is_stale else None
    for part in range(recipe.minibatches):
        whole = rows[part :: recipe.minibatches]
        chosen = set(map(_name, whole))
        own = [pair for pair in useful if _name(pair) in chosen]
        if not own:
            continue
        kept = [
            len(drawn.rollouts.tokens[row])
            for drawn, row in whole
            if not (recipe.loss.masks_truncated and not drawn.rollouts.stopped[row])
        ]
        for micro in _micro_batches(own):
            drawn, numbers = micro
            scored = token_logprobs(policy, drawn.rollouts, numbers)
            before = _before(old, drawn, numbers, scored.logprobs, recipe, policy)
            with torch.no_grad():
                against = (
                    token_logprobs(reference.policy, drawn.rollouts, numbers).logprobs
                    if reference is not None
                    else None
                )
            value, seen = policy_loss(
                scored.logprobs,
                before,
                drawn.advantage[numbers],
                scored.mask,
                recipe.loss,
                reference_logprobs=against,
                truncated=torch.tensor([not drawn.rollouts.stopped[row] for row in numbers]),
                max_tokens=recipe.max_new_tokens,
                total_tokens=float(sum(kept)),
                total_rows=len(whole),
            )
            value.backward()
            for name, amount in seen.items():
                totals[name] += float(amount)
            totals["entropy"] += float((scored.entropy.detach() * scored.mask).sum())
        norm = float(nn.utils.clip_grad_norm_(policy.parameters(), recipe.clip_norm))
        if not math.isfinite(norm):
            policy.zero_grad()
            raise FloatingPointError(
                f"train_policy: the gradient's norm is {norm}; it must be finite; go back to a checkpoint "
                f"with a lower rate"
            )
        norms.append(norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    tokens = max(totals["tokens"], 1.0)
    return {
        "clipped": totals["clipped"] / tokens,
        "kl": totals["kl"] / tokens,
        "entropy": totals["entropy"] / tokens,
        "masked": totals["masked"] / max(len(rows), 1),
        "grad_norm": mean(norms),
    }


def _name(pair: tuple[Experience, int]) -> tuple[int, int]:
    return id(pair[0]), pair[1]


def _micro_batches(rows: Sequence[tuple[Experience, int]]) -> list[tuple[Experience, list[int]]]:
    """Answers of one rollout together, the short with the short: little padding."""
    by_rollout: dict[int, tuple[Experience, list[int]]] = {}
    for drawn, row in rows:
        by_rollout.setdefault(id(drawn), (drawn, []))[1].append(row)
    batches = []
    for drawn, numbers in by_rollout.values():
        numbers.sort(key=lambda row: len(drawn.rollouts.prompt(row)) + len(drawn.rollouts.tokens[row]))
        batches += [
            (drawn, numbers[begin : begin + MICRO_ROWS]) for begin in range(0, len(numbers), MICRO_ROWS)
        ]
    return batches


@torch.no_grad()
def _old_logprobs(
    policy: Transformer, rows: Sequence[tuple[Experience, int]], recipe: RLRecipe
) -> dict[tuple[int, int], Tensor]:
    """The training forward's log-probabilities before the step's first update."""
    found = {}
    for drawn, numbers in _micro_batches(rows):
        scored = token_logprobs(policy, drawn.rollouts, numbers)
        for place, row in enumerate(numbers):
            found[id(drawn), row] = scored.logprobs[place, : len(drawn.rollouts.tokens[row])]
    return found


def _before(
    old: dict[tuple[int, int], Tensor] | None,
    drawn: Experience,
    numbers: list[int],
    now: Tensor,
    recipe: RLRecipe,
    policy: Transformer,
) -> Tensor:
    if recipe.old == "sampler":
        return sampled_logprobs(drawn.rollouts, numbers, policy.device)
    if old is None:
        return now.detach()  # the first and only update: the ratio is exactly 1
    before = torch.zeros_like(now)
    for place, row in enumerate(numbers):
        own = old[id(drawn), row]
        before[place, : len(own)] = own
    return before


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
