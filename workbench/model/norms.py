"""Root-mean-square normalisation, with and without a learned weight.

Report: section 2.3.3 (queries and compressed entries are normalised). Both run in fp32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from workbench.model.precision import KeepsFloat32


class RMSNorm(KeepsFloat32):
    """y = w · x / sqrt(mean(x²) + eps), in fp32 throughout and cast once at the end.

    Shapes: (..., d) -> (..., d).
    Source: V4 reference code; the weight stays fp32 in a bf16 model.
    """

    float32_tensors = ("weight",)

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor | float, eps: float) -> Tensor:
    """w · x / sqrt(mean(x²) + eps) over the last axis, in fp32 and cast once at the end.

    Shapes: x (..., d), weight (d,) or one number -> (..., d).
    """
    return _RMSNorm.apply(x.float(), weight, eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """y = w u with u = x ρ, ρ = inverse_rms(x); dL/dx = ρ (g w - u · mean(g w · u))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | float, eps: float) -> Tensor:
        rho = inverse_rms(x, eps)
        unit = x * rho
        ctx.save_for_backward(unit, rho)
        ctx.weight = weight
        return unit * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        unit, rho = ctx.saved_tensors
        dx = gradient * ctx.weight
        along = torch.linalg.vecdot(dx, unit).unsqueeze(-1) / -unit.shape[-1]
        is_learned = ctx.needs_input_grad[1]
        dweight = (gradient * unit).flatten(0, -2).sum(dim=0) if is_learned else None
        return dx.addcmul_(unit, along).mul_(rho), dweight, None


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x²) + eps) over the last axis, in fp32.

    Shapes: (..., d) -> (..., 1).
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square().div(x.shape[-1]).add(eps).rsqrt()
