"""Engram: a memory of n-grams, looked up by hash and written into the residual streams through a gate.

    k_1 .. k_n, v = W_kv [the rows of the n-grams that end at this token]
    a_j = X_j · (q_j ⊙ k'_j ⊙ k_j) / (rms(X_j) rms(k_j) √d)
    X_j <- X_j + σ(sign(a_j) √|a_j|) v

The rows are parameters that cost no multiplication: which ones a token needs is known from its id and those
before it. The gate lets the context refuse what the hash brings. Against the paper, V4.1 has no convolution
behind it.

Source: arXiv 2601.07372; V4.1-Flash, released inference code.
Axes: b rows, s tokens, n streams, d hidden_size, o orders, h heads.
"""

import torch
from torch import Tensor, nn

from workbench.model.norms import inverse_rms
from workbench.model.v41.ngrams import multipliers, table_primes, table_rows
from workbench.model.v41.v41_config import V41Config

LEAST = 1e-6  # of |a|, whose root would have no slope at 0


class Engram(nn.Module):
    """One layer's memory.

    Shapes: streams (b, s, n, d), ngrams (b, s, 4) of compressed ids, is_masked (b, s) -> (b, s, n, d).
    Masked tokens receive nothing.
    """

    def __init__(self, config: V41Config, layer: int):
        super().__init__()
        n, d, self.eps = config.hc_mult, config.hidden_size, config.rms_norm_eps
        primes = table_primes(config)[config.engram_layer_ids.index(layer)]
        self.embedding = nn.Embedding(int(primes.sum()), config.engram_head_dim)
        self.kv_proj = nn.Linear(primes.size * config.engram_head_dim, (n + 1) * d, bias=False)
        self.q_weight = nn.Parameter(torch.ones(n, d))
        self.k_weight = nn.Parameter(torch.ones(n, d))
        self.primes: Tensor
        self.factors: Tensor
        self.register_buffer("primes", torch.tensor(primes), persistent=False)
        self.register_buffer("factors", torch.tensor(multipliers(config, layer)), persistent=False)

    def rows(self, ngrams: Tensor) -> Tensor:
        """Which rows are looked up: (b, s, 4) -> (b, s, o, h)."""
        return table_rows(ngrams, self.factors, self.primes)

    def recall(self, streams: Tensor, ngrams: Tensor) -> tuple[Tensor, Tensor]:
        """The gates (b, s, n, 1) and what they let in (b, s, 1, d)."""
        found = self.embedding(self.rows(ngrams)).flatten(2)
        n, d = self.q_weight.shape
        both = self.kv_proj(found).unflatten(-1, (n + 1, d))
        key, value = both.split([n, 1], dim=-2)
        x, k = streams.float(), key.float()
        dot = (x * (self.q_weight * self.k_weight).float() * k).sum(dim=-1, keepdim=True) * d**-0.5
        dot = dot * inverse_rms(x, self.eps) * inverse_rms(k, self.eps)
        return (dot.sign() * dot.abs().clamp(min=LEAST).sqrt()).sigmoid(), value

    def forward(self, streams: Tensor, ngrams: Tensor, is_masked: Tensor) -> Tensor:
        gate, value = self.recall(streams, ngrams)
        gate = gate.masked_fill(is_masked[..., None, None], 0)
        return streams + gate.to(value.dtype) * value
