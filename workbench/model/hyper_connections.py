"""Manifold-constrained hyper-connections (mHC): n residual streams, mixed by a doubly stochastic matrix.

Before a sub-module, `pre` collapses the n streams into its input. After it, `post` spreads its output
over the streams and `comb` mixes the streams among themselves. All three depend on the token.

Report: section 2.2, eqs. 3-8 (A = pre, B = comb, C = post).
Axes: b batch, s tokens, n streams, j source stream, k destination stream, d hidden_size.
All arithmetic up to the collapsed vector is fp32.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from workbench.model.norms import inverse_rms
from workbench.model.precision import KeepsFloat32
from workbench.model.sinkhorn import sinkhorn
from workbench.model.v4_config import V4Config


class Mixing(NamedTuple):
    """One token's weights: pre (b, s, n), post (b, s, n), comb (b, s, j, k)."""

    pre: Tensor
    post: Tensor
    comb: Tensor


def collapse(streams: Tensor, pre: Tensor) -> Tensor:
    """x = Σ_j pre_j X_j, summed in fp32.

    Shapes: streams (b, s, n, d), pre (b, s, n) -> (b, s, d).
    """
    x = torch.bmm(pre.flatten(0, 1).unsqueeze(1), streams.float().flatten(0, 1))
    return x.view(*streams.shape[:2], -1).to(streams.dtype)


def expand(streams: Tensor, y: Tensor, post: Tensor, comb: Tensor) -> Tensor:
    """X'_k = post_k y + Σ_j comb[j, k] X_j: the sum runs over the first index of comb.

    Shapes: streams (b, s, n, d), y (b, s, d), post (b, s, n), comb (b, s, n, n) -> (b, s, n, d).
    Source: V4 reference code; transformers' casts of post and comb to the model dtype.
    """
    post, comb, y = (t.to(y.dtype).flatten(0, 1) for t in (post, comb, y))
    spread = torch.bmm(post.unsqueeze(2), y.unsqueeze(1))
    # In place: of a training step, only what comes in is kept for the gradient.
    return spread.baddbmm_(comb.mT, streams.flatten(0, 1)).view(streams.shape)


class _NormalisedLinear(torch.autograd.Function):
    """y = (x ρ) Wᵀ with ρ = inverse_rms(x), and its gradient in two passes over the streams.

    dL/dx = ρ g W - x ρ² (g · y) / width. Shapes: x (b, s, n·d), W (o, n·d) -> (b, s, o).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rho = inverse_rms(x, eps)
        y = F.linear(x, weight) * rho  # the norm scales 2n + n² numbers instead of n·d
        ctx.save_for_backward(x, weight, rho, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rho, y = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1) * rho.square() / -x.shape[-1]
        g, dx = (gradient * rho).flatten(0, 1), (x * along).flatten(0, 1)
        return dx.addmm_(g, weight).view(x.shape), g.T @ x.flatten(0, 1), None


class HyperConnection(KeepsFloat32):
    """The mixing weights of one site (one before attention, one before the experts).

    One linear map of the normalised, flattened streams gives 2n + n² numbers per token, scaled by
    three learned scalars and shifted by `base`:

        pre = σ(·) + eps      post = 2 σ(·)      comb = sinkhorn(·)

    Shapes: streams (b, s, n, d) -> Mixing, collapsed (b, s, d).
    Source: V4 report, section 2.2; order of the 2n + n² outputs from the reference code.
    """

    float32_tensors = ("fn", "base", "scale")

    def __init__(self, config: V4Config):
        super().__init__()
        n = self.hc_mult = config.hc_mult
        self.iterations, self.hc_eps, self.norm_eps = (
            config.hc_sinkhorn_iters,
            config.hc_eps,
            config.rms_norm_eps,
        )
        self.fn = nn.Parameter(torch.empty((2 + n) * n, n * config.hidden_size))
        self.base = nn.Parameter(torch.empty((2 + n) * n))
        self.scale = nn.Parameter(torch.empty(3))
        self.part: Tensor  # which of the three scales each output takes
        part = torch.tensor([0] * n + [1] * n + [2] * n * n, device="cpu")  # real even on a meta model
        self.register_buffer("part", part, persistent=False)

    def forward(self, streams: Tensor) -> tuple[Mixing, Tensor]:
        n = self.hc_mult
        flat = streams.flatten(2).float()  # stream by stream
        logits = _NormalisedLinear.apply(flat, self.fn, self.norm_eps)
        logits = torch.addcmul(self.base, logits, self.scale.index_select(0, self.part))
        pre, post, comb = logits.split_with_sizes([n, n, n * n], dim=-1)
        mixing = Mixing(
            pre=pre.sigmoid() + self.hc_eps,
            post=2 * post.sigmoid(),
            comb=sinkhorn(comb.unflatten(-1, (n, n)), self.iterations, self.hc_eps),
        )
        return mixing, collapse(streams, mixing.pre)


class HyperHead(KeepsFloat32):
    """The last collapse: n streams to the one vector that the head reads.

    Shapes: (b, s, n, d) -> (b, s, d).
    """

    float32_tensors = ("hc_fn", "hc_base", "hc_scale")

    def __init__(self, config: V4Config):
        super().__init__()
        self.hc_eps, self.norm_eps = config.hc_eps, config.rms_norm_eps
        self.hc_fn = nn.Parameter(torch.empty(config.hc_mult, config.hc_mult * config.hidden_size))
        self.hc_base = nn.Parameter(torch.empty(config.hc_mult))
        self.hc_scale = nn.Parameter(torch.empty(1))

    def forward(self, streams: Tensor) -> Tensor:
        flat = streams.flatten(2).float()  # stream by stream
        logits = _NormalisedLinear.apply(flat, self.hc_fn, self.norm_eps)
        return collapse(streams, (logits * self.hc_scale + self.hc_base).sigmoid() + self.hc_eps)
