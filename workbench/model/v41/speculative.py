"""Decoding with DSpark: five guesses from one pass of the draft, checked in one pass of the model.

A draft may be cut short where the confidence head doubts it: a guess that will be refused is not worth
checking. Whether a slot is checked depends on the tokens before it, not on its own, so that what is checked
can be accepted as always and the text keeps the model's distribution.

Source: arXiv 2211.17192, algorithm 1; DeepSpec repository (June 2026) for the schedule by confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.model.sampling import GREEDY, RowUniforms, Sampling, draw
from workbench.model.speculative import Acceptance, verify
from workbench.model.v41.transformer import V41Transformer


@dataclass(frozen=True)
class BlockAcceptance(Acceptance):
    """How the slots fared; checked[i] counts the passes that checked slot i + 1."""

    checked: tuple[int, ...]

    @property
    def kept_share(self) -> float:
        """The share of checked slots that was accepted."""
        return sum(self.accepted) / max(sum(self.checked), 1)


@torch.no_grad()
def generate_speculative(
    model: V41Transformer,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    replay: int | None = None,
    markov: bool = True,
    least_confidence: float = 0.0,
) -> tuple[list[int], BlockAcceptance]:
    """Continue one prompt (1, s), of which the decoder reads the last `replay` tokens: see `read`.

    A draft ends before the first slot that is less sure than asked.

    markov=False drafts every slot without the token before it: for comparison.

    Raises:
        ValueError: more than one row, or no token to write.
    """
    if len(input_ids) != 1 or max_new_tokens < 1:
        raise ValueError(
            f"generate_speculative: got {len(input_ids)} rows and max_new_tokens={max_new_tokens}; it writes "
            f"one row of 1 token or more; call it for each row"
        )
    slots, window, length = model.config.dspark_block_size, model.config.sliding_window, input_ids.shape[1]
    cache = model.new_cache(1, length + max_new_tokens + slots, max_rewind=slots)
    uniforms = RowUniforms(sampling, generator, 1, model.device)
    logits, targets = model.read(input_ids, cache, replay=replay)
    token = draw(sampling.probabilities(logits[:, -1]), uniforms([0], 1)[:, 0])
    out, passes, accepted_at, checked_at = [int(token)], 0, [0] * slots, [0] * slots
    while len(out) < max_new_tokens:
        targets = targets[:, -window:]
        context = model.mtp.context(targets, torch.tensor([cache.length - 1], device=model.device))
        y = model.mtp(context, token, model.model.embed_tokens)
        drafted, q, sure = model.mtp.sample(
            y, token, model.lm_head, sampling, uniforms([0], slots), markov=markov
        )
        k = int((sure[0].sigmoid() >= least_confidence).long().cumprod(dim=0).sum())
        logits, read = model.read(torch.cat((token[:, None], drafted[:, :k]), dim=1), cache, replay=slots + 1)
        (n,), (final,) = verify(
            sampling.probabilities(logits), q[:, :k], drafted[:, :k], uniforms([0], k + 1)
        )
        cache.rewind(k - n)
        out += [*drafted[0, :n].tolist(), final]
        targets = torch.cat((targets, read[:, : n + 1]), dim=1)
        token = torch.tensor([final], device=model.device)
        passes += 1
        accepted_at = [count + (n > i) for i, count in enumerate(accepted_at)]
        checked_at = [count + (k > i) for i, count in enumerate(checked_at)]
    return out[:max_new_tokens], BlockAcceptance(passes, tuple(accepted_at), tuple(checked_at))
