"""From real vectors to codes and back: finite scalar quantisation (FSQ), and vector quantisation (VQ).

Both have the same three uses: `quantiser(z)` for training (values with a straight-through gradient, ids, an
extra loss), `values(ids)` to decode, `n_codes`.

Axes: leading ones are free; d channels of a code.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantised(NamedTuple):
    """values (..., d), ids (...) and what the loss gets on top ()."""

    values: Tensor
    ids: Tensor
    extra_loss: Tensor


class FSQ(nn.Module):
    """Each channel is squashed by tanh and rounded to one of a few equidistant levels in [-1, 1].

    The code is the number whose digits are the levels, the first channel lowest. There is no table to learn
    and none to collapse, and the extra loss is 0.

    Source: Mentzer et al. (arXiv 2309.15505). Departs: an even number of levels lies symmetrically about 0
        (the paper has an unequal half step), so that all channels share one formula.
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.dim, self.n_codes = len(levels), math.prod(levels)
        self.levels: Tensor
        self.weights: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        weights = torch.tensor([1, *levels[:-1]]).cumprod(dim=0)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        squashed = z.tanh()
        digits = ((squashed + 1) / 2 * (self.levels - 1)).round()
        values = squashed + (2 * digits / (self.levels - 1) - 1 - squashed).detach()
        return Quantised(values, (digits.long() * self.weights).sum(dim=-1), z.new_zeros(()))

    def values(self, ids: Tensor) -> Tensor:
        """The vectors that codes stand for: (...) -> (..., d)."""
        digits = ids.unsqueeze(-1) // self.weights % self.levels
        return 2 * digits / (self.levels - 1) - 1


class VQ(nn.Module):
    """The nearest row of a learned table.

    The extra loss draws rows to the vectors that chose them and, a quarter as strongly, vectors to their
    rows. In training, rows that nobody chose for a while start again at vectors of the batch: without that
    most of the table is never used.

    Source: van den Oord et al. (arXiv 1711.00937), eq. 3, with beta = 0.25.
    """

    def __init__(self, n_codes: int, dim: int, patience: int = 50):
        super().__init__()
        self.dim, self.n_codes, self.patience = dim, n_codes, patience
        self.table = nn.Parameter(torch.randn(n_codes, dim) / dim**0.5)
        self.idle: Tensor
        self.register_buffer("idle", torch.zeros(n_codes, dtype=torch.long))

    def forward(self, z: Tensor) -> Quantised:
        vectors = z.flatten(0, -2)
        ids = torch.cdist(vectors.detach(), self.table.detach()).argmin(dim=1)
        if self.training:
            self._restart(vectors.detach(), ids)
        chosen = self.table[ids]
        extra = ((chosen - vectors.detach()) ** 2).mean() + 0.25 * ((chosen.detach() - vectors) ** 2).mean()
        values = (vectors + (chosen - vectors).detach()).view(z.shape)
        return Quantised(values, ids.view(z.shape[:-1]), extra)

    @torch.no_grad()
    def _restart(self, vectors: Tensor, ids: Tensor) -> None:
        self.idle += 1
        self.idle[ids] = 0
        idle = (self.idle > self.patience).nonzero().flatten()
        if len(idle):
            # Spread evenly over the batch: which vectors these are matters little, that they occur does.
            self.table[idle] = vectors[torch.linspace(0, len(vectors) - 1, len(idle)).long()]
            self.idle[idle] = 0

    def values(self, ids: Tensor) -> Tensor:
        """The vectors that codes stand for: (...) -> (..., d)."""
        return self.table[ids]
