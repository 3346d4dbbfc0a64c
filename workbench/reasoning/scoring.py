"""Log-probabilities of rollouts by the forward pass that trains.

Axes: b rows, s positions, t answer tokens, n residual streams, d hidden_size, v vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.model import Transformer
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
    ids, is_answer = padded_rows(rollouts, rows, policy.device)
    routes = None
    if replays and rollouts.routes is not None:
        # The last token is never read when sampling; nothing is predicted from it here either.
        routes = pad_routes([rollouts.routes[row] for row in rows], ids.shape[1] - 1)
    with replayed(policy, routes):
        x = policy.model.collapse(policy.streams(ids[:, :-1]))
    where = is_answer[:, 1:]
    logits = policy.lm_head(x[where]).float() / (rollouts.sampling.temperature or 1.0)
    if rollouts.kept is not None:
        kept = torch.cat([rollouts.kept[row] for row in rows]).to(logits.device)
        logits = logits.masked_fill(~kept, -torch.inf)
    log_p = logits.log_softmax(dim=-1)
    chosen = log_p.gather(1, ids[:, 1:][where][:, None])[:, 0]
    entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(dim=-1)

    lengths = torch.tensor([len(rollouts.tokens[row]) for row in rows], device=ids.device)
    mask = torch.arange(int(lengths.max()), device=ids.device) < lengths[:, None]
    # masked_scatter_ fills in reading order, which is the order of both masks.
    full = [mask.new_zeros(mask.shape, dtype=x.dtype).masked_scatter(mask, own) for own in (chosen, entropy)]
    return Scored(full[0], full[1], mask)


def sampled_logprobs(rollouts: Rollouts, rows: Sequence[int], device: torch.device) -> Tensor:
    """The sampler's own log-probabilities of some rows, zeros behind the shorter ones: (b, t)."""
    own = [rollouts.logprobs[row] for row in rows]
    width = max(map(len, own))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in own], device=device)
