"""A V4 without one of its parts, changed from outside: its gate, its residual streams, its norms.

Each function changes a fresh model in place, before its optimisers are made.

Report: sections 2.1 (gate), 2.2 (streams), 2.3.3 (norms). Axes: b rows, s tokens, h heads, c head_dim, d
hidden_size, e experts, n streams.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.model import Transformer
from workbench.model.attention import Attention, AttentionCore
from workbench.model.experts import Router
from workbench.model.hyper_connections import HyperConnection, HyperHead, Mixing, enter
from workbench.model.layer import DecoderLayer
from workbench.model.norms import inverse_rms


def sigmoid_gates(model: Transformer) -> None:
    """V3's affinity σ(x Wᵀ) in place of sqrt(softplus(x Wᵀ)), in learned and hash routers alike."""

    def affinity(router: Router, x: Tensor) -> Tensor:
        return F.linear(x, router.weight).sigmoid()

    for module in model.modules():
        if isinstance(module, Router):
            module.affinity = partial(affinity, module)  # type: ignore[method-assign]


@torch.no_grad()
def plain_residuals(model: Transformer) -> None:
    """X' = X + F(norm(X)): one stream, whose mixing weights are held where they start.

    With one stream comb is 1, post = 2σ(0) is 1, and pre = σ(0) only scales what a norm scales back.

    Raises:
        ValueError: the model has several streams.
    """
    if model.v4.hc_mult != 1:
        raise ValueError(
            f"plain_residuals: got hc_mult={model.v4.hc_mult}; a plain residual has one stream; build the "
            f"model with hc_mult=1"
        )
    for module in model.modules():
        if isinstance(module, (HyperConnection, HyperHead)):
            for name, p in module.named_parameters():
                p.requires_grad_(False)
                if name.endswith("scale"):
                    p.zero_()


class FreeConnection(HyperConnection):
    """Hyper-connections as first published: nothing holds the mixing weights.

    H = tanh(norm(X) Wᵀ) · scale + base, cut into pre, post and comb. It starts at pre = one stream, post = 1
    and comb = identity.

    Source: arXiv 2409.19606, eqs. 10-14, with its tanh.
    """

    def forward(self, streams: Tensor) -> tuple[Mixing, Tensor, Tensor]:
        n, flat = self.hc_mult, streams.flatten(2).float()
        logits = F.linear(flat, self.fn) * inverse_rms(flat, self.norm_eps)
        weights = logits.tanh() * self.scale.index_select(0, self.part) + self.base
        pre, post, comb = weights.split([n, n, n * n], dim=-1)
        mixing = Mixing(pre, post, comb.unflatten(-1, (n, n)))
        return mixing, *enter(streams, mixing.pre, mixing.comb)


@torch.no_grad()
def hyper_connections(model: Transformer) -> None:
    """Take the manifold away: every site's mixing weights are free, as in hyper-connections."""
    for number, layer in enumerate(m for m in model.modules() if isinstance(m, DecoderLayer)):
        for site, name in enumerate(("attn_hc", "ffn_hc")):
            free = FreeConnection(model.v4)
            free.load_state_dict(getattr(layer, name).state_dict())
            n = free.hc_mult
            pre = F.one_hot(torch.tensor((2 * number + site) % n), n)
            free.base.copy_(torch.cat((pre, torch.ones(n), torch.eye(n).flatten())))
            setattr(layer, name, free)


def plain_queries_and_entries(model: Transformer) -> None:
    """Attention without the RMSNorm of its query heads, window keys and compressed entries.

    The norm of a query head is arithmetic inside `Attention`, so it is undone behind it: a rotated query is
    as long as before its rotation, and times the root mean square that the norm took out it is the plain one.
    The indexer keeps its own norm.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.kv_norm = nn.Identity()  # type: ignore[assignment]
            if module.compressor is not None:
                module.compressor.kv_norm = nn.Identity()  # type: ignore[assignment]
            _Plain(module)


class _Plain:
    """The taken-out lengths of one layer's queries, on their way from the projection to the core."""

    def __init__(self, attention: Attention):
        self.heads, self.eps, self.taken, self.begin = attention.heads, attention.eps, torch.empty(0), 0
        attention.q_b_proj.register_forward_hook(self._note)
        attention.core.register_forward_pre_hook(self._put_back)

    def _note(self, _: nn.Module, inputs: Any, q: Tensor) -> None:
        self.taken, self.begin = 1 / inverse_rms(q.unflatten(-1, (self.heads, -1)), self.eps), 0

    def _put_back(self, core: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        assert isinstance(core, AttentionCore)
        q, *rest = inputs  # the queries of one range, ranges in order
        end = self.begin + q.shape[1]
        q, self.begin = q * self.taken[:, self.begin : end].to(q.dtype), end
        return q, *rest
