"""Root-mean-square normalisation, with and without a learned weight.

Report: section 2.3.3 (queries and compressed entries are normalised). Both run in fp32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x²) + eps) over the last axis, in fp32.

    Shapes: (..., d) -> (..., 1).
    """
    # The norm's gradient is one product with x; that of Σ x·x would be two and their sum.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square().div(x.shape[-1]).add(eps).rsqrt()
