"""The Hadamard rotation: spreads one large channel over all of its block, and undoes itself.

    H₁ = 1        H₂ₙ = [[Hₙ, Hₙ], [Hₙ, -Hₙ]]        x -> x Hₙ / √n

Rows of H/√n are orthonormal, so (Hq)·(Hk) = q·k: queries and keys that are both rotated score as before.
"""

from functools import cache

import torch
from einops import rearrange
from torch import Tensor


@cache
def hadamard_matrix(n: int) -> Tensor:
    """Hₙ / √n in fp32, (n, n), symmetric and orthogonal.

    Raises:
        ValueError: n is no power of two.
    """
    if n < 1 or n & (n - 1):
        raise ValueError(f"hadamard_matrix: got n={n}; it exists here for powers of two; choose such a block")
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat((torch.cat((h, h), dim=1), torch.cat((h, -h), dim=1)))
    return h * n**-0.5


def rotate_blocks(x: Tensor, block: int | None = None) -> Tensor:
    """Rotate every `block` neighbouring channels among themselves; all channels if None.

    Shapes: (..., c) -> (..., c). Computed in fp32 and returned in x's dtype.

    Raises:
        ValueError: the block is no power of two or does not divide the channels.
    """
    n = block or x.shape[-1]
    if x.shape[-1] % n:
        raise ValueError(
            f"rotate_blocks: got {x.shape[-1]} channels and blocks of {n}; blocks must divide the channels; "
            f"choose a smaller power of two"
        )
    blocks = rearrange(x.float(), "... (w n) -> ... w n", n=n)
    return rearrange(blocks @ hadamard_matrix(n).to(x.device), "... w n -> ... (w n)").to(x.dtype)
