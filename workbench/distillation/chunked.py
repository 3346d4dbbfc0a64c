"""A divergence over the full vocabulary from hidden states: the logits of few tokens exist at a time.

Report: V4 section 5.2.2: teachers' logits are rebuilt from their last hidden states through their heads.
Axes: t tokens, d hidden_size (the teacher's may differ), v vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.distillation.divergences import REVERSE, divergence
from workbench.model.loss import LOGIT_ELEMENTS


def linear_divergence(
    x: Tensor,
    weight: Tensor,
    teacher_x: Tensor,
    teacher_weight: Tensor,
    token_weights: Tensor,
    *,
    beta: float = REVERSE,
    temperature: float = 1.0,
    logit_elements: int = LOGIT_ELEMENTS,
) -> Tensor:
    """Σ_t token_weights[t] · divergence(x Wᵀ, x' W'ᵀ)[t], in fp32; gradients reach x and weight only.

    The gradients are computed with the value, slice by slice, so a slice's logits are made once. It costs
    what it costs in training even where no gradient is asked for later.

    Shapes: x (t, d), weight (v, d), teacher_x (t, d'), teacher_weight (v, d'), token_weights (t,) -> ().

    Raises:
        ValueError: as `divergence`, or another number of tokens or words.
    """
    if not (len(x) == len(teacher_x) == len(token_weights)) or len(weight) != len(teacher_weight):
        raise ValueError(
            f"linear_divergence: got {len(x)}, {len(teacher_x)} and {len(token_weights)} tokens, "
            f"{len(weight)} and {len(teacher_weight)} words; needs as many of each; cut both alike"
        )
    rows = max(logit_elements // len(weight), 1)
    return _LinearDivergence.apply(
        x, weight, teacher_x.detach(), teacher_weight.detach(), token_weights, (beta, temperature, rows)
    )


class _LinearDivergence(torch.autograd.Function):
    """Each slice is differentiated by autograd inside the forward pass, and its graph dropped."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        teacher_x: Tensor,
        teacher_weight: Tensor,
        token_weights: Tensor,
        settings: tuple[float, float, int],
    ) -> Tensor:
        beta, temperature, step = settings
        wanted = [x.requires_grad, weight.requires_grad]
        ctx.dx = torch.zeros_like(x) if wanted[0] else None
        ctx.dweight = torch.zeros_like(weight) if wanted[1] else None
        # fp32 unless the caller computes in fp64, as gradcheck does.
        wide = torch.promote_types(x.dtype, torch.float32)
        total = torch.zeros((), device=x.device, dtype=wide)
        own_weight = weight.detach().requires_grad_(wanted[1])
        for begin in range(0, len(x), step):
            part = slice(begin, begin + step)
            own = x[part].detach().requires_grad_(wanted[0])
            teacher = (teacher_x[part] @ teacher_weight.T).to(wide)
            with torch.enable_grad():
                each = divergence((own @ own_weight.T).to(wide), teacher, beta, temperature=temperature)
                value = (token_weights[part] * each).sum()
            total += value.detach()
            if not any(wanted):
                continue
            inputs = [t for t, is_wanted in zip((own, own_weight), wanted, strict=True) if is_wanted]
            found = list(torch.autograd.grad(value, inputs))
            if ctx.dweight is not None:
                ctx.dweight += found.pop()
            if ctx.dx is not None:
                ctx.dx[part] = found.pop()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        dx = None if ctx.dx is None else ctx.dx * gradient.to(ctx.dx.dtype)
        dweight = None if ctx.dweight is None else ctx.dweight * gradient.to(ctx.dweight.dtype)
        return dx, dweight, None, None, None, None
