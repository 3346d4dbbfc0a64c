"""Hybrid Newton-Schulz: every singular value of a matrix goes to 1, with matrix products alone.

One step replaces X by a X + b (X Xᵀ) X + c (X Xᵀ)² X. It keeps the singular vectors and sends every
singular value σ to the same polynomial of σ:

    p(σ) = a σ + b σ³ + c σ⁵

Eight steps with a steep p carry small σ up to about 1, where they keep jumping; two more, with p(1) = 1
and p'(1) = p''(1) = 0, pin them there.

Report: section 2.4, eq. 28. Axes: n rows, m columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Coefficients = Sequence[tuple[float, float, float]]

STEEP = (3.4445, -4.7750, 2.0315)
PINNING = (2.0, -1.5, 0.5)
HYBRID: Coefficients = (STEEP,) * 8 + (PINNING,) * 2

CACHED = 1 << 17
"""Numbers of a part. Measured: a third less time than whole stacks for the 375 experts' matrices of mini."""


def orthogonalise(
    x: Tensor, coefficients: Coefficients = HYBRID, dtype: torch.dtype = torch.float32
) -> Tensor:
    """U Vᵀ of each matrix X = U Σ Vᵀ, as near as the steps come.

    Singular values under about 1e-4 of the matrix's norm do not arrive; a zero matrix stays zero.

    Args:
        dtype: of the products; the report runs them in bf16.

    Shapes: (..., n, m) -> (..., n, m), in the dtype of x.
    Source: V4 report, section 2.4, eq. 28.
    """
    is_tall = x.shape[-2] > x.shape[-1]
    stack = x.reshape(-1, *x.shape[-2:])
    made = [_iterate((part.mT if is_tall else part).to(dtype), coefficients) for part in _in_cache(stack)]
    y = torch.cat([part.mT if is_tall else part for part in made])
    return y.to(x.dtype).reshape(x.shape)


def _in_cache(stack: Tensor) -> tuple[Tensor, ...]:
    """Parts that a CPU's core keeps at hand between two steps; an accelerator takes all at once."""
    if stack.device.type != "cpu":
        return (stack,)
    return stack.split(max(1, CACHED // max(1, stack.shape[1] * stack.shape[2])))


def _iterate(y: Tensor, coefficients: Coefficients) -> Tensor:
    y = _start(y)
    for step in coefficients:
        y = _step(y, *step)
    return y


def _start(y: Tensor) -> Tensor:
    # The norm of all entries is at least the largest singular value: after this none exceeds 1.
    return y / y.norm(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)


def _step(y: Tensor, a: float, b: float, c: float) -> Tensor:
    gram = y @ y.mT
    polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    return torch.baddbmm(y, polynomial, y, beta=a)


def singular_value_map(sigma: Tensor, coefficients: Coefficients = HYBRID) -> Tensor:
    """Where the steps send singular values, in float64: (...) -> (...)."""
    sigma = sigma.double()
    for a, b, c in coefficients:
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return sigma


def singular_values_by_step(
    x: Tensor, coefficients: Coefficients = HYBRID, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Singular values of a wide matrix divided by its norm, then after each step: (n, m) -> (n,) each."""
    iterates = [_start(x[None].to(dtype))]
    for step in coefficients:
        iterates.append(_step(iterates[-1], *step))
    return [torch.linalg.svdvals(y[0].double()) for y in iterates]


def with_singular_values(values: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """A random matrix with these singular values: (n,) -> (n, m), m at least n."""
    n = len(values)
    u, v = (torch.linalg.qr(torch.randn(k, n, generator=generator, dtype=torch.float64)).Q for k in (n, m))
    return ((u * values) @ v.T).float()
