"""One V4.1 layer: memory where the layer has one, then attention, then experts, around single-pass streams.

The input mix of a site was computed one site earlier, so a kernel can collapse the streams for the next
sub-module in the pass that writes this one's output:

    V4      X' = B_l X + C_l F_l(A_l X)            A, B, C from X: read X, then read it again
    V4.1    X' = B_l X + C_l F_l(A_(l-1) X)        everything that X is needed for is known when it is written

Source: V4.1-Flash report (arXiv 2609.19969), single-pass manifold-constrained hyper-connections (mHC).
Axes: b rows, s tokens, n streams, d hidden_size, e experts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from workbench.model.cache import LayerState
from workbench.model.experts import MoE, Router
from workbench.model.hyper_connections import HyperConnection, Mixing, collapse, enter, leave
from workbench.model.layout import Layout
from workbench.model.norms import RMSNorm
from workbench.model.v4_config import V4Config
from workbench.model.v41.csa2 import CSA2, Far
from workbench.model.v41.engram import Engram
from workbench.model.v41.v41_config import V41Config


class Carry(NamedTuple):
    """What one layer hands to the next: streams (b, s, n, d) and the mix that collapses them, (b, s, n)."""

    streams: Tensor
    pre: Tensor

    def last(self, tokens: int) -> "Carry":
        return Carry(self.streams[:, -tokens:].contiguous(), self.pre[:, -tokens:].contiguous())


class Tokens(NamedTuple):
    """The tokens of a pass: ids (b, s), their n-grams of compressed ids (b, s, 4), and which are pictures."""

    ids: Tensor
    ngrams: Tensor
    is_picture: Tensor

    def last(self, tokens: int) -> "Tokens":
        return Tokens(*(part[:, -tokens:] for part in self))


class SinglePassConnection(HyperConnection):
    """As V4's, but the sub-module's input is collapsed by the mix of the site before.

    `pre` of the weights is for the site after.

    Shapes: streams (b, s, n, d), pre (b, s, n) -> Mixing, A X (b, s, d), B X (b·s, n, d).
    """

    def forward(self, streams: Tensor, pre: Tensor | None = None) -> tuple[Mixing, Tensor, Tensor]:
        assert pre is not None
        mixing, streams = self.weigh(streams)
        return mixing, *enter(streams, pre, mixing.comb)


class PictureRouter(Router):
    """V4's learned router; tokens of pictures are chosen for with a bias of their own."""

    float32_tensors = ("e_score_correction_bias", "bias_vl")

    def __init__(self, config: V4Config, image_token_id: int):
        super().__init__(config)
        self.image_token_id = image_token_id
        self.bias_vl: Tensor
        self.register_buffer("bias_vl", torch.zeros(config.n_routed_experts))

    def _choose(self, affinity: Tensor, token_ids: Tensor) -> Tensor:
        is_picture = (token_ids == self.image_token_id).unsqueeze(-1)
        biased = affinity + torch.where(is_picture, self.bias_vl, self.e_score_correction_bias)
        return biased.topk(self.topk, dim=-1, sorted=False).indices


class V41Layer(nn.Module):
    """X <- memory(X);  X <- B X + C Attention(norm(A X));  X <- B X + C MoE(norm(A X))."""

    def __init__(self, config: V41Config, layer: int):
        super().__init__()
        v4, d, eps = config.as_v4, config.hidden_size, config.rms_norm_eps
        self.engram = Engram(config, layer) if layer in config.engram_layer_ids else None
        self.self_attn = CSA2(config, layer)
        self.mlp = MoE(v4, "moe")
        self.mlp.gate = PictureRouter(v4, config.image_token_id)
        self.input_layernorm = RMSNorm(d, eps)
        self.post_attention_layernorm = RMSNorm(d, eps)
        self.attn_hc = SinglePassConnection(v4)
        self.ffn_hc = SinglePassConnection(v4)

    def remember(self, carry: Carry, tokens: Tokens) -> Carry:
        """The streams with what the layer's memory writes."""
        if self.engram is None:
            return carry
        return Carry(self.engram(carry.streams, tokens.ngrams, tokens.is_picture), carry.pre)

    def store(self, carry: Carry, layout: Layout, state: LayerState) -> None:
        """Put the entries of these tokens into the cache, and do nothing else with them."""
        source, x = self.self_attn.source, self.input_layernorm(collapse(*carry))
        assert source is not None
        source(x, layout.windows(self.self_attn.ratio), state)

    def forward(
        self, carry: Carry, tokens: Tokens, layout: Layout, state: LayerState | None, far: Far
    ) -> Carry:
        streams, pre = self.remember(carry, tokens)
        mixing, x, mixed = self.attn_hc(streams, pre)
        streams = leave(mixed, self.self_attn(self.input_layernorm(x), layout, state, far), mixing.post)
        pre = mixing.pre
        mixing, x, mixed = self.ffn_hc(streams, pre)
        y = self.mlp(self.post_attention_layernorm(x), tokens.ids)
        return Carry(leave(mixed, y, mixing.post), mixing.pre)
