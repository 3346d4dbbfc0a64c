"""The lightning indexer of DeepSeek sparse attention (DSA): which tokens each query reads.

    I[t, u] = Σ_h W[t, h] · ReLU(Q[t, h] · K[u])          the index_topk largest u ≤ t are read

The same score as V4's, but over tokens instead of compressed entries: every query still meets every key.

Source: V3.2 report (arXiv 2512.02556), section 2.
Axes: b batch, s query tokens, q queries of a range, h index heads, c index channels, t keys, k selected.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from workbench.model.entries import Entries
from workbench.model.indexer import index_scores, largest
from workbench.model.latent.latent_config import LatentConfig
from workbench.model.rope import rotate


class Indexer(nn.Module):
    """The index keys of tokens, and the index queries that choose among them.

    Departs: the released code turns Q and K by a Hadamard matrix and rounds them to FP8. The turn leaves
    products as they are; rounding is the business of `workbench.quant`.
    """

    def __init__(self, config: LatentConfig):
        super().__init__()
        self.heads, self.width = config.index_n_heads, config.index_head_dim
        self.rope, self.topk = config.qk_rope_head_dim, config.index_topk
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.width, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.width, bias=False)
        self.k_norm = nn.LayerNorm(self.width, eps=1e-6)
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    def keys(self, x: Tensor, rotation: Tensor) -> Tensor:
        """K of every token: x (b, s, d) -> (b, s, c)."""
        return self._rotate(self.k_norm(self.wk(x)), rotation)

    def queries(self, x: Tensor, q_latent: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """Q (b, s, h, c) and W (b, s, h) of every token; W may be negative."""
        q = self.wq_b(q_latent).unflatten(-1, (self.heads, self.width))
        weights = self.weights_proj(x).float() * (self.heads * self.width) ** -0.5
        return self._rotate(q, rotation.unsqueeze(-2)), weights

    def _rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Turn the FIRST r channels, in pairs (i, i + r/2), where the attention turns its last in neighbours.

        The channels come out in another order, the same for queries and keys: products do not notice.
        """
        turned, still = x.split([self.rope, self.width - self.rope], dim=-1)
        turned = rearrange(turned, "... (two p) -> ... (p two)", two=2)
        return rotate(torch.cat((still, turned), dim=-1), rotation)


@dataclass(frozen=True)
class Selection:
    """One pass's index queries, with the index keys of all tokens so far.

    Shapes: q (b, s, h, c), weights (b, s, h), keys hold (t, c).
    """

    q: Tensor
    weights: Tensor
    keys: Entries
    topk: int

    @torch.no_grad()
    def best(self, begin: int, stop: int, hidden: Tensor) -> Tensor:
        """The topk best tokens for queries begin..stop-1, in no order; hidden ones last.

        No gradient passes a selection, so the language-model loss does not train the indexer.

        Shapes: hidden (1, q, t), boolean -> (b, q, k).
        """
        keys = self.keys.range(0, hidden.shape[-1])
        scores = index_scores(self.q[:, begin:stop], self.weights[:, begin:stop], keys)
        return largest(scores.masked_fill(hidden, -torch.inf), self.topk)[1]
