"""y = x Wᵀ in a chip's arithmetic, with a gradient.

Rounding passes the gradient straight through: backward multiplies by the rounded factors, as if they had
been there from the start.

Report: V4, section 3.4; V3, section 3.3 (all three products of a linear map in FP8).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workbench.quant.arithmetic.matmul import Arithmetic, matmul
from workbench.quant.arithmetic.operands import Operand


def linear(
    x: Tensor,
    weight: Tensor,
    arithmetic: Arithmetic,
    *,
    backward: Arithmetic | None = None,
    rounded: Operand | None = None,
) -> Tensor:
    """x · weightᵀ, in the dtype of x.

    `backward`: the arithmetic of both products of the backward pass, where the incoming gradient takes the
    format of `a`; None: torch's own product of the rounded factors. The product for the weight sums over
    tokens, so there both factors take the format of `a`. `rounded`: the weight's operand, if it is at hand.

    Shapes: x (..., k), weight (n, k) -> (..., n).

    Raises:
        ValueError: as `matmul`.
    """
    if rounded is None:
        rounded = arithmetic.operand_b(weight)
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        rows = arithmetic.operand_a(x.reshape(-1, x.shape[-1]))
        return matmul(rows, rounded, arithmetic).to(x.dtype).reshape(*x.shape[:-1], len(rounded.values))
    return _Linear.apply(x, weight, arithmetic, backward, rounded)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        arithmetic: Arithmetic,
        backward: Arithmetic | None,
        rounded: Operand,
    ) -> Tensor:
        rows = arithmetic.operand_a(x.reshape(-1, x.shape[-1]))
        ctx.save_for_backward(rows.numbers(), rounded.numbers())
        ctx.arithmetic, ctx.dtypes = backward, (x.dtype, weight.dtype)
        return matmul(rows, rounded, arithmetic).to(x.dtype).reshape(*x.shape[:-1], len(rounded.values))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        shape, dy = dy.shape, dy.reshape(-1, dy.shape[-1]).float()
        how: Arithmetic | None = ctx.arithmetic
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = dy @ weight if how is None else matmul(dy, weight.mT, how)
            dx = dx.to(ctx.dtypes[0]).reshape(*shape[:-1], weight.shape[1])
        if ctx.needs_input_grad[1]:
            dweight = dy.mT @ x if how is None else matmul(dy.mT, x.mT, replace(how, b=how.a))
            dweight = dweight.to(ctx.dtypes[1])
        return dx, dweight, None, None, None
