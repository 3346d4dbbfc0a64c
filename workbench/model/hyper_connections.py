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
    x = _mixed(pre.flatten(0, 1).unsqueeze(1), streams.float().flatten(0, 1))
    return x.view(*streams.shape[:2], -1).to(streams.dtype)


def _mixed(weights: Tensor, x: Tensor, onto: Tensor | None = None) -> Tensor:
    """Every token's streams in new mixtures: (t, o, n), (t, n, d) -> (t, o, d); added to `onto` in place.

    A product of fewer than 400 terms never reaches torch's matrix library; then sums of streams are faster.
    """
    if weights.shape[1] * x.shape[1] * x.shape[2] >= 400:
        return torch.bmm(weights, x) if onto is None else onto.baddbmm_(weights, x)
    first = weights[..., :1], x[:, :1]
    y = torch.mul(*first) if onto is None else onto.addcmul_(*first)
    for j in range(1, x.shape[1]):
        y.addcmul_(weights[..., j : j + 1], x[:, j : j + 1])
    return y


def enter(streams: Tensor, pre: Tensor, comb: Tensor) -> tuple[Tensor, Tensor]:
    """What a sub-module reads, A X = Σ_j pre_j X_j, and what passes by it, (B X)_k = Σ_j comb[j, k] X_j.

    The second sum runs over the first index of comb.

    Shapes: streams (b, s, n, d), pre (b, s, n), comb (b, s, n, n) -> (b, s, d), (b·s, n, d).
    Source: V4 reference code; transformers' cast of comb to the model dtype.
    """
    x, mixed = _Enter.apply(streams, pre, comb)
    return x, mixed


def leave(mixed: Tensor, y: Tensor, post: Tensor) -> Tensor:
    """X'_k = (B X)_k + post_k y, written over B X.

    Shapes: mixed (b·s, n, d), y (b, s, d), post (b, s, n) -> (b, s, n, d).
    Source: V4 reference code; transformers' cast of post to the model dtype.
    """
    out: Tensor = _Leave.apply(mixed, y.flatten(0, 1), post.to(y.dtype).flatten(0, 1))
    return out.unflatten(0, y.shape[:2])


class _Leave(torch.autograd.Function):
    """`leave` with its gradients as products: dL/dy = Σ_k post_k G_k, dL/dpost_k = G_k · y."""

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, y: Tensor, post: Tensor) -> Tensor:
        ctx.save_for_backward(y, post)
        ctx.mark_dirty(mixed)
        return _mixed(post.unsqueeze(2), y.unsqueeze(1), mixed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, post = ctx.saved_tensors
        dy = _mixed(post.unsqueeze(1), g).squeeze(1)
        return g, dy, torch.bmm(g, y.unsqueeze(2)).squeeze(2)


class _Enter(torch.autograd.Function):
    """`enter` with the gradient of both sums in one tensor: dL/dX_j = Σ_k comb[j, k] G_k + pre_j g."""

    @staticmethod
    def forward(ctx: Any, streams: Tensor, pre: Tensor, comb: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(streams, pre, comb)
        mixed = _mixed(comb.to(streams.dtype).flatten(0, 1).mT, streams.flatten(0, 1))
        return collapse(streams, pre), mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, g_mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        streams, pre, comb = ctx.saved_tensors
        x, g = streams.flatten(0, 1), g.flatten(0, 1).unsqueeze(1)
        dx = _mixed(comb.to(x.dtype).flatten(0, 1), g_mixed)
        dx.addcmul_(pre.to(x.dtype).flatten(0, 1).unsqueeze(2), g)
        dpre, dcomb = torch.bmm(g, x.mT), torch.bmm(x, g_mixed.mT)
        return (
            dx.view(streams.shape),
            dpre.view(pre.shape).to(pre.dtype),
            dcomb.view(comb.shape).to(comb.dtype),
        )


class _NormalisedLinear(torch.autograd.Function):
    """y = (x ρ) Wᵀ with x the streams one after the other and ρ = inverse_rms(x), in fp32; and the streams.

    They come back so that what reads them next sends its gradient through here, where all is added up in
    one tensor: dL/dx = ρ g W - x ρ² (g · y) / width + the rest.

    Shapes: streams (b, s, n, d), W (o, n·d) -> (b, s, o), (b, s, n, d).
    """

    @staticmethod
    def forward(ctx: Any, streams: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x = streams.flatten(2).float()
        rho = inverse_rms(x, eps)
        y = F.linear(x, weight) * rho  # the norm scales 2n + n² numbers instead of n·d
        ctx.save_for_backward(x, weight, rho, y)
        return y, streams

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rho, y = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1) * rho.square() / -x.shape[-1]
        g, x = (gradient * rho).flatten(0, 1), x.flatten(0, 1)
        dx = torch.addcmul(rest.flatten(2).flatten(0, 1).float(), x, along.flatten(0, 1)).addmm_(g, weight)
        return dx.view(rest.shape).to(rest.dtype), g.T @ x, None


class HyperConnection(KeepsFloat32):
    """The mixing weights of one site (one before attention, one before the experts).

    One linear map of the normalised, flattened streams gives 2n + n² numbers per token, scaled by
    three learned scalars and shifted by `base`:

        pre = σ(·) + eps      post = 2 σ(·)      comb = sinkhorn(·)

    Shapes: streams (b, s, n, d) -> Mixing, A X (b, s, d), B X (b·s, n, d).
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

    def forward(self, streams: Tensor) -> tuple[Mixing, Tensor, Tensor]:
        mixing, streams = self.weigh(streams)
        return mixing, *enter(streams, mixing.pre, mixing.comb)

    def weigh(self, streams: Tensor) -> tuple[Mixing, Tensor]:
        """The weights, and the streams for whatever reads them next: see _NormalisedLinear."""
        n = self.hc_mult
        logits, streams = _NormalisedLinear.apply(streams, self.fn, self.norm_eps)
        logits = torch.addcmul(self.base, logits, self.scale.index_select(0, self.part))
        pre, post, comb = logits.split_with_sizes([n, n, n * n], dim=-1)
        mixing = Mixing(
            pre=pre.sigmoid() + self.hc_eps,
            post=2 * post.sigmoid(),
            comb=sinkhorn(comb.unflatten(-1, (n, n)), self.iterations, self.hc_eps),
        )
        return mixing, streams


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
        logits, streams = _NormalisedLinear.apply(streams, self.hc_fn, self.norm_eps)
        return collapse(streams, (logits * self.hc_scale + self.hc_base).sigmoid() + self.hc_eps)
