"""GPTQ: round a weight one input channel at a time, and let the channels to come make up for the error.

With H = Σ x xᵀ of the inputs, rounding channel j to q_j costs least if all later channels move by

    δw = -(w_j - q_j) / [H⁻¹]_jj · [H⁻¹]_j,:        then j leaves the problem (its row and column leave H)

All the inverses that this takes stand in one Cholesky factor: with H⁻¹ = Uᵀ U, row j of U is
[H⁻¹]_j,: / √[H⁻¹]_jj of the problem that is left at step j.

Source: Frantar et al., arXiv 2210.17323; scales fixed beforehand as in MR-GPTQ, arXiv 2509.23202.
Axes: n outputs, k inputs, e experts or groups.
"""

import torch
from torch import Tensor

from workbench.quant.blocks import BlockFormat
from workbench.quant.quantized import Quantized

DAMPING = 0.01  # of the mean diagonal of H, added to it: channels that the calibration never moved
LAZY = 128  # channels whose changes are carried together to the channels behind them


def gptq_round(
    weight: Tensor, second_moment: Tensor, fmt: BlockFormat, damping: float = DAMPING
) -> Quantized:
    """Round a matrix for inputs with this second moment. The scales are those of plain rounding.

    Shapes: weight (n, k), second_moment (k, k).
    A matrix whose inputs were all zero is rounded plainly.
    """
    plain = fmt.quantize(weight)
    ridge = damping * second_moment.diagonal().mean()
    if ridge == 0:
        return plain
    scales = _per_element(plain, fmt)
    inverse = torch.cholesky_inverse(
        torch.linalg.cholesky(second_moment.double() + ridge.double() * torch.eye(len(second_moment)))
    )
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    w, codes = weight.float().clone(), torch.empty_like(plain.codes)
    for begin in range(0, w.shape[1], LAZY):
        block = slice(begin, begin + LAZY)
        errors = torch.zeros_like(w[:, block])
        for j in range(begin, min(begin + LAZY, w.shape[1])):
            codes[:, j] = fmt.element.encode(w[:, j] / scales[:, j], fmt.ties)
            error = (w[:, j] - fmt.element.decode(codes[:, j]) * scales[:, j]) / factor[j, j]
            w[:, j + 1 : block.stop] -= torch.outer(error, factor[j, j + 1 : block.stop])
            errors[:, j - begin] = error
        w[:, block.stop :] -= errors @ factor[block, block.stop :]
    return Quantized(codes, plain.scales, fmt, plain.tensor_scale)


def _per_element(quantized: Quantized, fmt: BlockFormat) -> Tensor:
    """The scale of every element, (n, k)."""
    n, k = quantized.shape
    scales = fmt.block_scales(quantized)
    scales = scales.reshape(1, 1) if scales.ndim == 0 else scales
    rows, columns = fmt.rows or n, fmt.columns or k
    return scales.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[:n, :k]
