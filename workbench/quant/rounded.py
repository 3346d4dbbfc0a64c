"""Products of rounded factors: simulated in training, and with weights that really are codes.

    forward     y  = Q(x) · Q(W)ᵀ
    backward    dx = Q(dy) · Q(W)           tiles of dy along n
                dW = Q(dyᵀ) · Q(Q(x)ᵀ)ᵀ     tiles of dy and of x along t

Rounding passes gradients straight through, so dx and dW are taken at the rounded factors and handed to the
full-precision ones. A rule without a gradient format leaves the three Q of the backward pass out.

Report: V3 (arXiv 2412.19437), section 3.3; V4, section 3.4.
Axes: t tokens, k inputs, n outputs, e experts, g groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.quant.fake import fake_quantize
from workbench.quant.hadamard import rotate_blocks
from workbench.quant.quantized import Format, Quantized
from workbench.quant.recipes import Rule


@dataclass(frozen=True)
class Calibrated:
    """What post-training quantisation found for one weight.

    scale s and rotation R (Hadamard, in blocks of that many channels) change nothing without rounding:
    (x / s) R · (W s R)ᵀ = x Wᵀ. codes: W s R in the first of its formats, one matrix of a stack after the
    other.

    Shapes: scale (k,).
    """

    scale: Tensor | None = None
    rotation: int | None = None
    codes: tuple[Quantized, ...] = ()

    def of_input(self, x: Tensor) -> Tensor:
        """(x / s) R."""
        x = x if self.scale is None else x / self.scale
        return x if self.rotation is None else rotate_blocks(x, self.rotation)

    def of_weight(self, weight: Tensor) -> Tensor:
        """W s R."""
        weight = weight if self.scale is None else weight * self.scale
        return weight if self.rotation is None else rotate_blocks(weight, self.rotation)


AS_IS = Calibrated()


class RoundedProduct:
    """A `Product` by a rule. The gradient reaches the parameter, except past calibrated codes."""

    def __init__(self, rule: Rule, calibrated: Calibrated = AS_IS):
        self.rule, self.calibrated = rule, calibrated
        self.fixed = [codes.dequantize() for codes in calibrated.codes]

    def weight(self, weight: Tensor) -> Tensor:
        if self.fixed:
            return round_to(torch.cat(self.fixed).view_as(weight).to(weight), self.rule.weight[1:])
        return round_to(self.calibrated.of_weight(weight), self.rule.weight)

    def __call__(self, x: Tensor, weight: Tensor, expert: int | None) -> Tensor:
        x = self.calibrated.of_input(x)
        if self.rule.activation is not None:
            x = fake_quantize(x, self.rule.activation)
        if self.rule.gradient is None or not torch.is_grad_enabled():
            return multiply(x, weight)
        return _RoundedBackward.apply(x, weight, self.rule.gradient)


class PackedProduct(RoundedProduct):
    """A `Product` whose weight is held as bytes, and decoded for each pass.

    `stored`: each matrix's tensors as a file would hold them, with its format and shape.
    """

    def __init__(self, rule: Rule, codes: Sequence[Quantized], calibrated: Calibrated = AS_IS):
        super().__init__(rule, replace(calibrated, codes=()))
        self.stored = [(part.format, part.packed(), part.shape) for part in codes]

    def weight(self, weight: Tensor) -> Tensor:
        parts = [fmt.unpack(tensors, shape).dequantize() for fmt, tensors, shape in self.stored]
        return round_to(torch.cat(parts).view(weight.shape).to(weight.dtype), self.rule.weight[1:])

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.nbytes for _, tensors, _ in self.stored for tensor in tensors.values())


def round_to(x: Tensor, formats: Sequence[str | Format]) -> Tensor:
    """Round to one format after the other; the gradient passes."""
    for fmt in formats:
        x = fake_quantize(x, fmt)
    return x


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ by the very calls the model makes. Shapes: (..., t, k), (n, k); or (g, t, k), (g, n, k)."""
    return F.linear(x, weight) if weight.ndim == 2 else torch.bmm(x, weight.mT)


class _RoundedBackward(torch.autograd.Function):
    """multiply(), with rounded factors in its backward products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gradient: str | Format) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.gradient = gradient
        return multiply(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = multiply(fake_quantize(dy, ctx.gradient), weight.mT)
        if ctx.needs_input_grad[1]:
            # A linear map sees rows of tokens; a grouped one already has them on one axis.
            dy, x = (t.flatten(0, -2) if weight.ndim == 2 else t for t in (dy, x))
            by_token = (fake_quantize(t.mT.contiguous(), ctx.gradient) for t in (dy, x))
            dweight = multiply(*by_token)
        return dx, dweight, None
