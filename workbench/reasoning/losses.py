"""Policy gradient losses: GRPO (group relative policy optimisation) as published, and its repairs as options.

For answer i of a group, with reward r_i and old probabilities π_old (the sampler's):

    A_i = r_i - mean(r)   [over std(r)]                   advantage, the same for every token
    ρ_t = π(o_t) / π_old(o_t)                             ratio of a token, or of a sequence:
    ρ   = exp(mean_t log ρ_t)                             GSPO
    s_t = min(ρ A, clip(ρ, 1 - low, 1 + high) A)          clipped; or, CISPO:
    s_t = stop(min(ρ, 1 + high)) A log π(o_t)
    k_t = exp(d) - d - 1,  d = log π_ref - log π          KL; V3.2 multiplies it by ρ
    L   = - average_t (s_t - β k_t)

Axes: b answers, t tokens.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """Which policy gradient.

    Args:
        scale: what advantages are divided by: the standard deviation of their group (n - 1 form, plus
            1e-4, as in TRL), or nothing.
        ratio: of each token, or of the whole sequence.
        surrogate: "clip" (PPO's), or "cispo": clip the weight, keep every token's gradient.
        clip_low, clip_high: the ratio is held between 1 - clip_low and 1 + clip_high.
        average: "sequence" means over each answer's tokens, then over answers; "token" over all tokens at
            once; "constant" divides the sum by answers times max_tokens.
        kl_weight: β; 0 needs no reference.
        is_kl_unbiased: multiply the KL by the ratio, so that its gradient is that of KL(π‖π_ref) (V3.2).
        mask_above: leave out an answer with A < 0 whose mean log(π_old / π) exceeds this (V3.2);
            its KL stays.
        masks_truncated: leave out answers that ran into the limit (DAPO's overlong filter).

    Raises:
        ValueError: a number out of range.
    """

    scale: Literal["group", "none"] = "group"
    ratio: Literal["token", "sequence"] = "token"
    surrogate: Literal["clip", "cispo"] = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    average: Literal["sequence", "token", "constant"] = "sequence"
    kl_weight: float = 0.0
    is_kl_unbiased: bool = False
    mask_above: float = math.inf
    masks_truncated: bool = False

    def __post_init__(self) -> None:
        if min(self.clip_low, self.clip_high, self.kl_weight) < 0:
            raise ValueError(
                f"PolicyLoss: got clip_low={self.clip_low}, clip_high={self.clip_high}, kl_weight="
                f"{self.kl_weight}; needs numbers from 0; correct the one below"
            )

    def replace(self, **changes: object) -> "PolicyLoss":
        return replace(self, **changes)  # type: ignore[arg-type]


GRPO = PolicyLoss()
LOSSES: dict[str, PolicyLoss] = {
    "GRPO": GRPO,
    # R1's first stage: the ratio may move tenfold, a weak pull to a reference renewed every 400 steps.
    "R1": PolicyLoss(clip_low=10.0, clip_high=10.0, kl_weight=0.001),
    "Dr. GRPO": PolicyLoss(scale="none", average="constant"),
    "DAPO": PolicyLoss(clip_high=0.28, average="token", masks_truncated=True),
    "GSPO": PolicyLoss(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "CISPO": PolicyLoss(surrogate="cispo", clip_high=4.0, average="token"),
    "V3.2": PolicyLoss(scale="none", kl_weight=0.001, is_kl_unbiased=True, mask_above=0.5, average="token"),
}
"""The published losses by name. Where a paper leaves a constant open (CISPO's bound, V3.2's threshold and
KL weight) it is ours."""


def advantages(rewards: Tensor, group_size: int, scale: str = "group") -> Tensor:
    """How much better each answer is than its group: (b,) -> (b,). All 0 where a group's rewards agree.

    Raises:
        ValueError: rewards that do not divide into groups of 2 or more.
    """
    if group_size < 2 or rewards.ndim != 1 or len(rewards) % group_size:
        raise ValueError(
            f"advantages: got rewards {tuple(rewards.shape)} and group_size={group_size}; needs a row of "
            f"whole groups of 2 or more; draw several answers a prompt"
        )
    groups = rearrange(rewards, "(p g) -> p g", g=group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (groups.std(dim=1, keepdim=True) + 1e-4)
    return centred.flatten()


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantage: Tensor,
    mask: Tensor,
    loss: PolicyLoss,
    *,
    reference_logprobs: Tensor | None = None,
    truncated: Tensor | None = None,
    max_tokens: int | None = None,
    total_tokens: Tensor | float | None = None,
    total_rows: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of some answers, and what happened: clipped and all tokens, KL and masked answers, as sums.

    Shapes: logprobs, old_logprobs, reference_logprobs, mask (b, t); advantage, truncated (b,) -> ().

    Args:
        truncated: answers that ran into the limit; needed if the loss masks them.
        max_tokens: of an answer; needed by the average "constant".
        total_tokens, total_rows: of the whole batch, where these answers are a part of it: the losses of
            the parts then add up to the whole's. Theirs if None.

    Raises:
        ValueError: something that the loss needs is missing.
    """
    missing = [
        name
        for name, is_missing in (
            ("reference_logprobs", loss.kl_weight > 0 and reference_logprobs is None),
            ("truncated", loss.masks_truncated and truncated is None),
            ("max_tokens", loss.average == "constant" and max_tokens is None),
        )
        if is_missing
    ]
    if missing:
        raise ValueError(f"policy_loss: got no {', '.join(missing)}; needs them for {loss}; give them")
    mask = mask.to(logprobs.dtype)
    if loss.masks_truncated and truncated is not None:
        mask = mask * (~truncated)[:, None]
    rows = len(mask) if total_rows is None else total_rows
    tokens = mask.sum() if total_tokens is None else total_tokens
    length = mask.sum(dim=1).clamp(min=1)

    log_ratio = logprobs - old_logprobs
    if loss.ratio == "sequence":
        log_ratio = ((log_ratio * mask).sum(dim=1) / length)[:, None]
    ratio = log_ratio.exp()
    a = advantage[:, None]
    if loss.surrogate == "cispo":
        gain = ratio.clamp(max=1 + loss.clip_high).detach() * a * logprobs
        clipped = (ratio > 1 + loss.clip_high) & (a > 0)
    else:
        bounded = ratio.clamp(1 - loss.clip_low, 1 + loss.clip_high)
        gain = torch.min(ratio * a, bounded * a)
        clipped = ratio * a > bounded * a
    gain = gain.expand_as(mask)
    kl = torch.zeros_like(mask)
    if loss.kl_weight > 0 and reference_logprobs is not None:
        d = reference_logprobs - logprobs
        kl = d.exp() - d - 1
        if loss.is_kl_unbiased:
            kl = kl * ratio
    staleness = ((old_logprobs - logprobs) * mask).sum(dim=1) / length
    kept = (advantage >= 0) | (staleness.detach() <= loss.mask_above)
    per_token = (loss.kl_weight * kl - gain * kept[:, None]) * mask

    if loss.average == "sequence":
        value = (per_token.sum(dim=1) / length).sum() / rows
    elif loss.average == "token":
        value = per_token.sum() / max(float(tokens), 1.0)
    else:
        assert max_tokens is not None
        value = per_token.sum() / (rows * max_tokens)
    with torch.no_grad():
        noted = {
            "clipped": (clipped.expand_as(mask) * mask).sum(),
            "kl": (kl * mask).sum(),
            "masked": (~kept).sum(),
            "tokens": mask.sum(),
        }
    return value, noted
