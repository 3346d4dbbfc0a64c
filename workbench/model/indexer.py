"""The lightning indexer: which compressed entries each query of a CSA layer reads.

    I[p, w] = Σ_h W[p, h] · ReLU(Q[p, h] · K[w])          the index_topk largest are read

It has its own small compressor. The selection passes no gradient, so nothing here is trained by the
language-model loss.

Report: section 2.3.1, eqs. 13-17. CSA is compressed sparse attention.
Axes: b batch, s query tokens, h index heads, c index channels, t entries, k selected.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.model.cache import CompressedState
from workbench.model.compressor import Compressor
from workbench.model.entries import Entries, Visible
from workbench.model.layout import Layout
from workbench.model.rope import rotate
from workbench.model.v4_config import V4Config

QUERIES = 32  # scored at a time
SCORE_ELEMENTS = 1 << 18  # per-head scores held at a time: 1 MB, so that they stay in a core's cache
FOLD = 8  # numbers of which `largest` first looks at the greatest alone


def index_scores(q: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
    """I[p, w] = Σ_h W[p, h] · ReLU(Q[p, h] · K[w]), in fp32.

    Shapes: q (b, s, h, c), weights (b, s, h), keys (b, t, c) -> (b, s, t).
    Source: V4 report, eq. 16.
    """
    per_head = (q.float().flatten(1, 2) @ keys.float().mT).relu_().view(*q.shape[:3], -1)
    return (weights.float().unsqueeze(2) @ per_head).squeeze(2)


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest numbers along the last axis and their places, in no particular order.

    Long rows are folded FOLD-fold first: the k columns with the greatest maxima hold them all. A maximum
    costs a fraction of what a number costs in `topk`.

    Shapes: (..., t) -> (..., k), (..., k).
    """
    columns = scores.shape[-1] // FOLD
    if columns < 2 * k:
        return scores.topk(k, dim=-1, sorted=False)
    folded = scores[..., : FOLD * columns].unflatten(-1, (FOLD, columns))
    chosen = folded.amax(dim=-2).topk(k, dim=-1, sorted=False).indices
    places = torch.arange(scores.shape[-1], device=scores.device)
    in_columns = (chosen.unsqueeze(-2) + places[: FOLD * columns : columns, None]).flatten(-2)
    left_over = places[FOLD * columns :].expand(*scores.shape[:-1], -1)
    candidates = torch.cat((in_columns, left_over), dim=-1)
    values, best = scores.gather(-1, candidates).topk(k, dim=-1, sorted=False)
    return values, candidates.gather(-1, best)


class IndexerScorer(nn.Module):
    """The head weights W: a linear map of the token, scaled by h^(-1/2) c^(-1/2); they may be negative."""

    def __init__(self, config: V4Config):
        super().__init__()
        self.scale = (config.index_n_heads * config.index_head_dim) ** -0.5
        self.weights_proj = nn.Linear(config.hidden_size, config.index_n_heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights_proj(x).float() * self.scale


class Indexer(Compressor):
    """Scores every visible entry for every query and selects the index_topk best."""

    def __init__(self, config: V4Config, ratio: int):
        super().__init__(config, ratio, config.index_head_dim, overlaps=True)
        self.heads, self.topk = config.index_n_heads, config.index_topk
        self.q_b_proj = nn.Linear(
            config.q_lora_rank, config.index_n_heads * config.index_head_dim, bias=False
        )
        self.scorer = IndexerScorer(config)

    def queries(self, x: Tensor, q_latent: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Q (b, s, h, c), turned to its position, and W (b, s, h)."""
        q = self.q_b_proj(q_latent).view(*x.shape[:2], self.heads, self.width)
        return rotate(q, layout.rotation("compress").unsqueeze(2)), self.scorer(x)

    @torch.no_grad()
    def select(
        self, x: Tensor, q_latent: Tensor, layout: Layout, state: CompressedState | None
    ) -> "Selection | None":
        """Add this pass's tokens to the index keys and prepare to select for its queries.

        None where no query sees more than index_topk entries: then each reads all that it sees.
        """
        windows = layout.windows(self.ratio)
        keys = self(x, windows, state)
        first, end = windows.visible.bounds(0, layout.n_tokens)
        if keys is None or end - first <= self.topk:
            return None
        return Selection(*self.queries(x, q_latent, layout), keys, windows.visible, self.topk)


@dataclass(frozen=True)
class Selection:
    """One pass's index queries and keys, from which blocks of queries choose their entries.

    Shapes: q (b, s, h, c), weights (b, s, h).
    """

    q: Tensor
    weights: Tensor
    keys: Entries
    visible: Visible
    topk: int

    @torch.no_grad()
    def best(self, begin: int, stop: int, first: int, end: int) -> Tensor:
        """The best entries among first..end-1 for queries begin..stop-1; `end` stands for "none".

        Shapes: -> (b, s, k), in no particular order.
        """
        # Channel by channel in memory: the products read them in that order.
        keys = self.keys.range(first, end).float().mT.contiguous().mT
        step = max(QUERIES // len(self.q), 1)
        best = [self._best(i, min(i + step, stop), first, end, keys) for i in range(begin, stop, step)]
        return torch.cat(best, dim=1) if len(best) > 1 else best[0]

    def _best(self, begin: int, stop: int, first: int, end: int, keys: Tensor) -> Tensor:
        values, places = largest(self.scores(begin, stop, first, end, keys), self.topk)
        if self.visible.certain(begin) - first >= self.topk:
            return places + first
        return torch.where(values == -torch.inf, end, places + first)

    def scores(self, begin: int, stop: int, first: int, end: int, keys: Tensor) -> Tensor:
        """The scores of entries first..end-1, with these keys; -inf where a query does not see one."""
        q, weights = self.q[:, begin:stop], self.weights[:, begin:stop]
        tile = max(SCORE_ELEMENTS // q[..., 0].numel(), 1)
        scores = torch.cat([index_scores(q, weights, part) for part in keys.split(tile, dim=1)], dim=-1)
        certain = max(self.visible.certain(begin), first)
        if certain < end:
            hidden = self.visible.hidden(begin, stop, certain, end)
            scores[..., certain - first :].masked_fill_(hidden, -torch.inf)
        return scores
