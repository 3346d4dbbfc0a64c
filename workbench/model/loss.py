"""Next-token cross entropy without the logits of a whole batch.

Logits are the largest tensor of a training step (tokens x vocabulary). Here they exist for a slice of
the tokens at a time; the slice's gradients are taken at once and its logits are dropped.

Axes: t tokens, d hidden_size, v vocab_size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGIT_ELEMENTS = 1 << 21  # logits held at a time: 8 MB
IGNORED = -100  # the label of a token that carries no loss, as in transformers


def linear_cross_entropy(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log softmax(x Wᵀ)[label] over the tokens whose label is not -100, in fp32.

    The gradients are computed with the value, so it costs what it costs in training even where no
    gradient is asked for later; under no_grad it computes the value alone.

    Shapes: x (t, d), weight (v, d), labels (t,) -> ().
    """
    return _LinearCrossEntropy.apply(x, weight, labels, x.requires_grad, weight.requires_grad)


class _LinearCrossEntropy(torch.autograd.Function):
    """d loss / d logits = (softmax - one-hot) / count, slice by slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, for_x: bool, for_weight: bool) -> Tensor:
        ctx.dx = torch.empty_like(x) if for_x else None
        ctx.dweight = torch.zeros_like(weight) if for_weight else None
        count = (labels != IGNORED).sum()
        total = torch.zeros((), device=x.device)
        step = max(LOGIT_ELEMENTS // len(weight), 1)
        for i in range(0, len(x), step):
            rows = slice(i, i + step)
            log_p = F.log_softmax(x[rows] @ weight.T, dim=-1, dtype=torch.float32)
            label = labels[rows].clamp(min=0).unsqueeze(1)
            counted = (labels[rows] != IGNORED).unsqueeze(1)
            total -= (log_p.gather(1, label) * counted).sum()
            if not (for_x or for_weight):
                continue
            dlogits = log_p.exp_().scatter_add_(1, label, torch.full_like(log_p[:, :1], -1.0))
            dlogits, share = dlogits.to(x.dtype), (counted / count).to(x.dtype)
            if ctx.dx is not None:
                ctx.dx[rows] = (dlogits @ weight) * share
            if ctx.dweight is not None:
                ctx.dweight.addmm_(dlogits.T, x[rows] * share)
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        dx = None if ctx.dx is None else ctx.dx * gradient.to(ctx.dx.dtype)
        dweight = None if ctx.dweight is None else ctx.dweight * gradient.to(ctx.dweight.dtype)
        return dx, dweight, None, None, None
