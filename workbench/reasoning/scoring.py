"""Log-probabilities of rollouts by the forward pass that trains.

Axes: b rows, s positions, t answer tokens, n residual streams, d hidden_size, v vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.model import Transformer
from workbench.model.generate import pad
from workbench.reasoning.rollout import Rollouts, padded_rows
from workbench.reasoning.routes import pad_routes, replayed


class Scored(NamedTuple):
    """Of every answer token: log-probability, entropy of the distribution it came from, and where it stands.

    Rows shorter than the longest hold zeros, where mask is False. Shapes: all (b, t).
    """

    logprobs: Tensor
    entropy: Tensor
    mask: Tensor


def token_logprobs(
    policy: Transformer, rollouts: Rollouts, rows: Sequence[int] | None = None, *, replays: bool = True
) -> Scored:
    """Score the answers of some rows, under the distribution they were drawn from.

    The temperature is the rollouts'; where filters left only some words, the same words are left here
    (the sampling mask is replayed). Only answer positions meet the head.

    Args:
        replays: route by the experts that the rollouts recorded, if they did.
    """
    rows = range(len(rollouts)) if rows is None else rows
    routes = rollouts.routes if replays else None
    has_groups = len({row // rollouts.group_size for row in rows}) < len(rows)
    read = _read_branches if has_groups and not policy.recompute_activations else _read_whole
    x = read(policy, rollouts, rows, routes)
    logits = policy.lm_head(x).float() / (rollouts.sampling.temperature or 1.0)
    if rollouts.kept is not None:
        kept = torch.cat([rollouts.kept[row] for row in rows]).to(logits.device)
        logits = logits.masked_fill(~kept, -torch.inf)
    log_p = logits.log_softmax(dim=-1)
    ids = torch.tensor([token for row in rows for token in rollouts.tokens[row]], device=policy.device)
    chosen = log_p.gather(1, ids[:, None])[:, 0]
    entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(dim=-1)

    mask = _is_token(rollouts, rows, x.device)
    # masked_scatter_ fills in reading order, which is the order of the tokens.
    full = [mask.new_zeros(mask.shape, dtype=x.dtype).masked_scatter(mask, own) for own in (chosen, entropy)]
    return Scored(full[0], full[1], mask)


def _read_whole(
    policy: Transformer, rollouts: Rollouts, rows: Sequence[int], routes: Sequence[Tensor] | None
) -> Tensor:
    """What each answer token is predicted from, row after row: (tokens, d)."""
    ids, is_answer = padded_rows(rollouts, rows, policy.device)
    ids = ids[:, :-1]  # nothing is predicted from a last token, and the sampler never read it
    with replayed(policy, pad_routes([routes[row] for row in rows], ids.shape[1]) if routes else None):
        return policy.model.collapse(policy.streams(ids))[is_answer[:, 1:]]


def _read_branches(
    policy: Transformer, rollouts: Rollouts, rows: Sequence[int], routes: Sequence[Tensor] | None
) -> Tensor:
    """The same, with every prompt read once for all its answers."""
    numbers = sorted({row // rollouts.group_size for row in rows})
    prompts = [rollouts.prompts[number] for number in numbers]
    answers = [rollouts.tokens[row][:-1] for row in rows]
    width = max(map(len, answers))
    cache = policy.new_cache(len(prompts), max(map(len, prompts)) + width)

    def read(texts: Sequence[Sequence[int]], own_routes: Sequence[Tensor]) -> Tensor:
        ids, counts = pad(texts, policy.device), [len(text) for text in texts]
        with replayed(policy, pad_routes(own_routes, ids.shape[1]) if own_routes else None):
            return policy.model.collapse(policy.streams(ids, cache=cache, counts=counts))

    firsts = [number * rollouts.group_size for number in numbers]
    x = read(prompts, [routes[row][: len(rollouts.prompt(row))] for row in firsts] if routes else [])
    ends = torch.tensor([len(prompt) - 1 for prompt in prompts], device=x.device)
    sources = [numbers.index(row // rollouts.group_size) for row in rows]
    x = x[torch.arange(len(x), device=x.device), ends][sources, None]
    if width:
        cache.reorder(sources)
        later = read(answers, [routes[row][len(rollouts.prompt(row)) :] for row in rows] if routes else [])
        x = torch.cat((x, later), dim=1)
    return x[_is_token(rollouts, rows, x.device)]


def _is_token(rollouts: Rollouts, rows: Sequence[int], device: torch.device) -> Tensor:
    """Where rows padded to the longest answer hold tokens: (b, t)."""
    lengths = torch.tensor([len(rollouts.tokens[row]) for row in rows], device=device)
    return torch.arange(int(lengths.max()), device=device) < lengths[:, None]


def sampled_logprobs(rollouts: Rollouts, rows: Sequence[int], device: torch.device) -> Tensor:
    """The sampler's own log-probabilities of some rows, zeros behind the shorter ones: (b, t)."""
    own = [rollouts.logprobs[row] for row in rows]
    width = max(map(len, own))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in own], device=device)
