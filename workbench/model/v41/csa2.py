"""CSA2, the attention of V4.1: few layers own compressed entries, several read each.

    full      pools windows of m tokens into entries and index keys, and selects among them
    reindex   reads the entries of the last full layer, and selects anew
    reuse     reads entries and selection as they are

Window keys and queries are always the layer's own. Against V4: windows do not overlap and have no position
bias; index keys are a projection of the entries; queries are not normalised per head; the indexer rotates
nothing into a Hadamard basis.

Source: V4.1-Flash report (arXiv 2609.19969) and its released inference code.
CSA is compressed sparse attention.
Axes: b rows, s query tokens, h heads, c channels, w windows, m tokens of a window, t entries, k selected.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workbench.config import SWA
from workbench.model.attention import Attention
from workbench.model.cache import LayerState
from workbench.model.entries import Entries, PackedVisible, Visible
from workbench.model.indexer import IndexerScorer, Selection
from workbench.model.layout import Layout
from workbench.model.norms import RMSNorm
from workbench.model.rope import rotate
from workbench.model.v41.v41_config import V41Config
from workbench.model.windows import Windows


class EntrySource(nn.Module):
    """What a full layer owns: windows of m tokens become entries, and entries index keys.

        e_w = norm(Σ_i softmax_i(g) ⊙ v_i) over the m tokens of window w; norm(v_w) where m = 1
        entry = rope(e_w, m·w)        index key = rope(norm(W_k e_w), m·w)

    The softmax runs per channel, in fp32. The index key is projected from the unrotated e_w; no gradient
    passes it.

    Shapes: x (b, s, d) -> the entries and index keys that this pass's queries may read, None if there are
        none.
    """

    def __init__(self, config: V41Config, ratio: int):
        super().__init__()
        d, c, eps = config.hidden_size, config.head_dim, config.rms_norm_eps
        self.kv_proj = nn.Linear(d, c, bias=False)
        self.gate_proj = nn.Linear(d, c, bias=False) if ratio > 1 else None
        self.kv_norm = RMSNorm(c, eps)
        self.index_k_proj = nn.Linear(c, config.index_head_dim, bias=False)
        self.index_k_norm = RMSNorm(config.index_head_dim, eps)
        # quant.v41_stores puts rounding in the place of these.
        self.entry_store: nn.Module = nn.Identity()
        self.index_store: nn.Module = nn.Identity()

    def forward(
        self, x: Tensor, windows: Windows, state: LayerState | None
    ) -> tuple[Entries | None, Entries | None]:
        raw = self.kv_proj(x)
        if self.gate_proj is not None:
            raw = torch.cat((raw, self.gate_proj(x)), dim=-1)
        compressed, index = (state.compressed, state.index) if state else (None, None)
        pooled = windows.split(raw, False, compressed)
        entries = keys = None
        if pooled is not None:
            e = self.kv_norm(self._pool(pooled.own))
            entries = self.entry_store(rotate(e, windows.rotation))
            with torch.no_grad():
                keys = rotate(self.index_k_norm(self.index_k_proj(e)), windows.rotation)
                keys = self.index_store(keys)
        return windows.collect(entries, compressed), windows.collect(keys, index)

    def _pool(self, raw: Tensor) -> Tensor:
        """(..., w, m, c or 2c) -> (..., w, c)."""
        if self.gate_proj is None:
            return raw.squeeze(-2)
        value, gate = raw.chunk(2, dim=-1)
        return (gate.float().softmax(dim=-2).to(value.dtype) * value).sum(dim=-2)


@dataclass(frozen=True)
class Choice(Selection):
    """A selection that later layers read again, and that may be limited to the blocks of another.

    Blocks of queries are selected once: reusing layers ask for the same ones.
    """

    pool: "Candidates | None" = None
    made: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def best(self, begin: int, stop: int, first: int, end: int) -> Tensor:
        asked = (begin, stop, first, end)
        if asked not in self.made:
            self.made[asked] = super().best(*asked)
        return self.made[asked]

    def scores(self, begin: int, stop: int, first: int, end: int, keys: Tensor) -> Tensor:
        scores = super().scores(begin, stop, first, end, keys)
        if self.pool is not None:
            outside = self.pool.outside(begin, stop, first, end, keys)
            if outside is not None:
                scores = scores.masked_fill(outside, -torch.inf)
        return scores


@dataclass(frozen=True)
class Candidates:
    """The entries that the decoder's later selections choose among: the best blocks of one layer's scores.

    A block of `size` entries counts as much as its best one; the newest that a query sees is always in.

    Source: V4.1-Flash report, hierarchical indexer.
    """

    source: Selection
    n_blocks: int
    size: int
    made: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def outside(self, begin: int, stop: int, first: int, end: int, keys: Tensor) -> Tensor | None:
        """Whether entries first..end-1 are out of the pool of queries begin..stop-1.

        Shapes: -> (b, s, t), None where none is.
        """
        if end - first <= self.n_blocks * self.size:
            return None
        asked = (begin, stop, first, end)
        if asked not in self.made:
            scores = self.source.scores(*asked, keys)
            start, last = _sample(self.source.visible, begin, stop)
            entry = torch.arange(first, end, device=scores.device)
            block = ((entry - start).clamp(min=0) // self.size).expand(scores.shape)
            best = scores.new_full((*scores.shape[:-1], int(block.max()) + 1), -torch.inf)
            best.scatter_reduce_(-1, block, scores, "amax")
            newest = (last - 1 - start).clamp(min=0) // self.size
            best.scatter_(-1, newest.expand(*scores.shape[:-1], 1), torch.inf)
            kept = best.topk(min(self.n_blocks, best.shape[-1]), dim=-1).indices
            is_out = torch.ones_like(best, dtype=torch.bool).scatter_(-1, kept, False)
            self.made[asked] = is_out.gather(-1, block)
        return self.made[asked]


def _sample(visible: Visible, begin: int, stop: int) -> tuple[Tensor, Tensor]:
    """The range of entries that each query sees, (b or 1, s, 1) twice."""
    end = visible.end[:, begin:stop, None]
    start = visible.first[:, begin:stop, None] if isinstance(visible, PackedVisible) else end.new_zeros(())
    return start, end


@dataclass
class Far:
    """What the last full layer and the last selecting layer of a pass left for those behind them."""

    entries: Entries | None = None
    index_keys: Entries | None = None
    choice: Choice | None = None
    pool: Candidates | None = None


class Chooser(nn.Module):
    """The indexer of a selecting layer: its queries and head weights; the keys are the full layer's.

    I[p, w] = Σ_h W[p, h] · ReLU(Q[p, h] · K[w]),    W scaled by (h·c)^(-1/2)
    """

    def __init__(self, config: V41Config):
        super().__init__()
        self.heads, self.topk = config.index_n_heads, config.index_topk
        self.q_b_proj = nn.Linear(config.q_lora_rank, self.heads * config.index_head_dim, bias=False)
        self.scorer = IndexerScorer(config.as_v4)
        self.index_store: nn.Module = nn.Identity()

    @torch.no_grad()
    def select(self, x: Tensor, q_latent: Tensor, layout: Layout, ratio: int, far: Far) -> Choice | None:
        """None where no query sees more than index_topk entries: then each reads all that it sees."""
        visible = layout.windows(ratio).visible
        first, end = visible.bounds(0, layout.n_tokens)
        if far.index_keys is None or end - first <= self.topk:
            return None
        q = self.q_b_proj(q_latent).unflatten(-1, (self.heads, -1))
        q = self.index_store(rotate(q, layout.rotation("compress").unsqueeze(2)))
        return Choice(q, self.scorer(x), far.index_keys, visible, self.topk, far.pool)


class CSA2(Attention):
    """The attention of one layer, in the mode that the configuration gives it.

    Shapes: x (b, s, d) -> (b, s, d); `far` is read, and written by full and reindex layers.
    """

    def __init__(self, config: V41Config, layer: int):
        super().__init__(config.as_v4, SWA, 0)
        self.ratio, mode = config.layer_ratios[layer], config.modes[layer]
        self.is_sparse = self.ratio > 0
        self.rule = "compress" if self.ratio else "main"
        self.source = EntrySource(config, self.ratio) if mode == "full" else None
        self.chooser = Chooser(config) if mode in ("full", "reindex") else None
        self.gives_pool = layer == config.candidate_source_layer_id
        self.pool_blocks, self.block_size = config.candidate_topk_blocks, config.candidate_block_size
        self.window_store: nn.Module = nn.Identity()

    def forward(
        self, x: Tensor, layout: Layout, state: LayerState | None = None, far: Far | None = None
    ) -> Tensor:
        far = Far() if far is None else far
        rotation = layout.rotation(self.rule)
        q_latent = self.q_a_norm(self.q_a_proj(x))
        q = self.q_b_proj(q_latent).unflatten(-1, (self.heads, -1))
        q = rotate(q * q.shape[-1] ** -0.5, rotation.unsqueeze(2))
        kv = self.window_store(rotate(self.kv_norm(self.kv_proj(x)), rotation))
        keys = layout.keys(kv, state.window if state else None)
        if self.source is not None:
            far.entries, far.index_keys = self.source(x, layout.windows(self.ratio), state)
        if self.chooser is not None:
            far.choice = self.chooser.select(x, q_latent, layout, self.ratio, far)
            if self.gives_pool and far.choice is not None:
                far.pool = Candidates(far.choice, self.pool_blocks, self.block_size)
        entries = far.entries if self.ratio else None
        o = self._attend(q, keys, layout, entries, far.choice if self.ratio else None)
        o = rotate(o, rotation.conj().unsqueeze(2))
        return self.o_b_proj(self.o_a_proj(o.flatten(2)))

    def _visible(self, layout: Layout) -> Visible:
        return layout.windows(self.ratio).visible
