"""Sinkhorn-Knopp: a positive matrix becomes doubly stochastic by scaling rows and columns in turn.

Report: section 2.2, eq. 8. Order and eps follow the released code: softmax over rows, then columns,
rows, columns, ..., ending on columns.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW_TOKENS = 8  # so few take longer to call torch than to compute; numpy's calls cost a third


def sinkhorn(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """The doubly stochastic matrix of each token's n x n logits, differentiable once.

    M = softmax over the last index + eps; then M / (column sums + eps), and `iterations` - 1 times
    M / (row sums + eps), M / (column sums + eps). Column sums run over the first index.

    Shapes: (..., n, n) -> (..., n, n), fp32.
    Source: V4 report, eq. 8; released code for the order.
    """
    start = logits.softmax(dim=-1) + eps
    if torch.is_grad_enabled() and start.requires_grad:
        return _Normalise.apply(start, 2 * iterations - 1, eps)
    return _normalise(start, 2 * iterations - 1, eps)


def sinkhorn_of_one(logits: np.ndarray, iterations: int, eps: float) -> np.ndarray:
    """`sinkhorn` of one token in numpy: (n, n) -> (n, n)."""
    n = len(logits)
    start = np.exp(logits - logits.max(axis=1, keepdims=True))
    matrix = np.ones((1, n * n + 1), np.float32)
    matrix[0, :-1] = (start / start.sum(axis=1, keepdims=True) + eps).reshape(-1)
    sums = _summing_matrices(n, eps, torch.device("cpu"), torch.float32)
    _normalise_in_numpy(matrix, 2 * iterations - 1, [factor.numpy() for factor in sums])
    return matrix[0, :-1].reshape(n, n)


def _normalise_in_numpy(matrix: np.ndarray, passes: int, columns_rows: list[np.ndarray]) -> None:
    divisor = np.empty_like(matrix)
    for i in range(passes):
        np.dot(matrix, columns_rows[i % 2], out=divisor)
        np.divide(matrix, divisor, out=matrix)


def _normalise(start: Tensor, passes: int, eps: float) -> Tensor:
    """Alternate column and row passes."""
    n = start.shape[-1]
    matrix = _flat(start)
    sums = _summing_matrices(n, eps, start.device, start.dtype)
    if len(matrix) <= FEW_TOKENS and start.device.type == "cpu":
        _normalise_in_numpy(matrix.numpy(), passes, [factor.numpy() for factor in sums])
    else:
        divisor = torch.empty_like(matrix)
        for i in range(passes):
            torch.mm(matrix, sums[i % 2], out=divisor)
            torch.div(matrix, divisor, out=matrix)
    return matrix[:, :-1].reshape(start.shape)


def _flat(start: Tensor) -> Tensor:
    """A new (tokens, n·n + 1): every matrix in a row, and one more coordinate that stays 1.

    So a pass is two operations: a matrix product that sums and repeats the sums, and a division. Through
    the last coordinate eps enters every sum.
    """
    n = start.shape[-1]
    matrix = start.new_ones(start[..., 0, 0].numel(), n * n + 1)
    matrix[:, :-1] = start.reshape(-1, n * n)
    return matrix


class _Normalise(torch.autograd.Function):
    """The passes with their gradient in closed form, so that training stores one matrix a token.

    A pass y = x / D, D = Σx + eps, has dL/dx = (g - Σ g·y) / D. The gradient by the logarithms, p = g·y,
    takes two operations a pass: p becomes p - y · Σp.
    """

    @staticmethod
    def forward(ctx: Any, start: Tensor, passes: int, eps: float) -> Tensor:
        ctx.save_for_backward(start)
        ctx.passes, ctx.eps = passes, eps
        return _normalise(start, passes, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (start,) = ctx.saved_tensors
        n = start.shape[-1]
        sums = _summing_matrices(n, ctx.eps, start.device, start.dtype)
        steps = [_flat(start)]
        for i in range(ctx.passes):
            steps.append(steps[i] / (steps[i] @ sums[i % 2]))
        p = torch.zeros_like(steps[-1])
        p[:, :-1] = gradient.reshape(-1, n * n) * steps[-1][:, :-1]
        for i in reversed(range(ctx.passes)):
            p.addcmul_(steps[i + 1], p @ sums[i % 2], value=-1)
        return (p / steps[0])[:, :-1].reshape(start.shape), None, None


@lru_cache
def _summing_matrices(n: int, eps: float, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Right factors that turn a flattened matrix (and its coordinate 1) into column or row sums + eps."""
    same, every = torch.eye(n), torch.ones(n, n)
    factors = []
    for sums in (torch.kron(every, same), torch.kron(same, every)):
        factor = torch.eye(n * n + 1)
        factor[:-1, :-1] = sums
        factor[-1, :-1] = eps
        factors.append(factor.to(device, dtype))
    return factors[0], factors[1]
