"""Hybrid attention: a sliding window, compressed entries and a sink share one softmax.

One vector per token is key and value for all heads. A query at position p attends to the last
sliding_window tokens, to compressed entries (all visible ones in HCA, the indexer's choice in CSA), and
to a learned sink that takes probability but has no value:

    P = softmax over (q·k_j / √c for every key j, sinks[h])          o = Σ_j P_j k_j

The values carry their rotation, so the output is turned back by the query's own position. It leaves
through two matrices, the first of them block-diagonal over o_groups groups of heads.

Report: section 2.3, eqs. 13-27. CSA is compressed sparse attention, HCA heavily compressed attention.
Axes: b batch, s query tokens, h heads, c head_dim, r rope dims, g output groups, n blocks of queries,
q queries of a block, t keys, k selected entries.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from workbench.config import CSA, SWA
from workbench.model.cache import LayerState
from workbench.model.compressor import Compressor
from workbench.model.entries import Entries, Visible
from workbench.model.indexer import Indexer, Selection
from workbench.model.layout import Layout
from workbench.model.norms import RMSNorm, rms_norm
from workbench.model.precision import KeepsFloat32
from workbench.model.rope import Rule, rotate
from workbench.model.v4_config import V4Config

LOGIT_ELEMENTS = 1 << 22  # attention logits held at a time: 16 MB in fp32
RANGE_QUERIES = 512  # at most so many queries at a time: each range scores the entries up to its end
DENSE_FACTOR = 4  # up to this many times index_topk entries, masking all beats gathering the selected


class CSACompressor(Compressor):
    """The compressor of a CSA layer, with its indexer."""

    def __init__(self, config: V4Config, ratio: int):
        super().__init__(config, ratio, config.head_dim, overlaps=True)
        self.indexer = Indexer(config, ratio)


class GroupedLinear(nn.Linear):
    """A block-diagonal linear map: each of g groups of inputs has its own rows of the weight.

    Shapes: x (b, s, g·i) -> (b, s, g·o); weight (g·o, i).
    """

    def __init__(self, in_features_per_group: int, out_features: int, groups: int):
        super().__init__(in_features_per_group, out_features, bias=False)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.unflatten(0, (self.groups, -1)).mT
        y = torch.bmm(x.reshape(-1, self.groups, weight.shape[1]).swapaxes(0, 1), weight)
        return y.swapaxes(0, 1).reshape(*x.shape[:-1], -1)


class AttentionCore(nn.Module):
    """One softmax over window keys, entries and sink, for one range of queries.

    It holds no weights; it is a module so that a forward hook can watch the probabilities.
    """

    def forward(
        self,
        q: Tensor,
        keys: Tensor,
        key_bias: Tensor | None,
        entries: Tensor | None,
        entry_bias: Tensor | None,
        sinks: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend, and return the output with the probabilities of window, entries (if any) and sink.

        Shapes: q (b, s, h, c), already scaled; keys (b, n, c, t), one block of queries each;
            key_bias (b or 1, n, q, t); entries (b, t, c) shared by all queries or (b, s, k, c) for each;
            entry_bias (b or 1, s, t or k); no bias means nothing hidden -> o (b, s, h, c), probabilities
            (b, s·h, t), (b, s·h, t or k), (b, s·h, 1).
        """
        b, s, h, c = q.shape
        n = keys.shape[1]
        keys = keys.flatten(0, 1)
        # Queries of a block lie together, and heads of a query: every layout below is a plain reshape.
        near = torch.bmm(q.reshape(b * n, -1, c), keys)
        if key_bias is not None:
            near = near.view(b, n, -1, h, near.shape[-1]) + key_bias.unsqueeze(3)
        logits = [near.reshape(b, s * h, -1)]
        if entries is not None:
            shared = entries.ndim == 3
            far = q.flatten(1, 2) @ entries.mT if shared else (q @ entries.mT).flatten(1, 2)
            if entry_bias is not None:
                far = (far.view(b, s, h, -1) + entry_bias.unsqueeze(2)).flatten(1, 2)
            logits.append(far)
        logits.append(sinks.repeat(s)[:, None].expand(b, -1, -1))
        # The sinks are fp32, and so is the softmax.
        probabilities = torch.cat(logits, dim=-1).softmax(dim=-1)
        parts = probabilities.split_with_sizes([part.shape[-1] for part in logits], dim=-1)

        near = parts[0].to(q.dtype).reshape(b * n, -1, keys.shape[-1])
        o = torch.bmm(near, keys.mT).view(b, s * h, c)
        if entries is not None:
            far = parts[1].to(q.dtype)
            o = (
                torch.baddbmm(o, far, entries)
                if shared
                else o + (far.view(b, s, h, -1) @ entries).view(b, s * h, c)
            )
        return o.view(b, s, h, c), parts


class Attention(KeepsFloat32):
    """The attention of one layer, of any of the three types.

    Queries are processed in ranges: memory grows with the range, not with tokens x keys.

    Shapes: x (b, s, d) -> (b, s, d).
    Source: V4 report, section 2.3; module names of transformers.
    """

    float32_tensors = ("sinks",)

    def __init__(self, config: V4Config, layer_type: str, ratio: int):
        super().__init__()
        c, heads, groups = config.head_dim, config.num_attention_heads, config.o_groups
        self.heads, self.eps, self.sliding_window = heads, config.rms_norm_eps, config.sliding_window
        self.index_topk = config.index_topk
        self.rule: Rule = "main" if layer_type == SWA else "compress"
        self.q_a_proj = nn.Linear(config.hidden_size, config.q_lora_rank, bias=False)
        self.q_a_norm = RMSNorm(config.q_lora_rank, config.rms_norm_eps)
        self.q_b_proj = nn.Linear(config.q_lora_rank, heads * c, bias=False)
        self.kv_proj = nn.Linear(config.hidden_size, c, bias=False)
        self.kv_norm = RMSNorm(c, config.rms_norm_eps)
        self.o_a_proj = GroupedLinear(heads * c // groups, groups * config.o_lora_rank, groups)
        self.o_b_proj = nn.Linear(groups * config.o_lora_rank, config.hidden_size, bias=False)
        self.sinks = nn.Parameter(torch.empty(heads))
        self.core = AttentionCore()
        self.is_sparse = layer_type == CSA
        self.compressor: Compressor | None = None
        if layer_type == CSA:
            self.compressor = CSACompressor(config, ratio)
        elif layer_type != SWA:
            self.compressor = Compressor(config, ratio, c, overlaps=False)

    def forward(self, x: Tensor, layout: Layout, state: LayerState | None = None) -> Tensor:
        rotation = layout.rotation(self.rule)
        q_latent = self.q_a_norm(self.q_a_proj(x))
        q = self.q_b_proj(q_latent).view(*x.shape[:2], self.heads, -1)
        # Each head is normalised; the factor 1/√c of the logits rides along.
        q = rms_norm(q, q.shape[-1] ** -0.5, self.eps)
        q = rotate(q, rotation.unsqueeze(2))
        kv = rotate(self.kv_norm(self.kv_proj(x)), rotation)
        keys = layout.keys(kv, state.window if state else None)

        entries = selection = None
        if self.compressor is not None:
            windows = layout.windows(self.compressor.ratio)
            entries = self.compressor(x, windows, state.compressed if state else None)
            if isinstance(self.compressor, CSACompressor):
                selection = self.compressor.indexer.select(
                    x, q_latent, layout, state.index if state else None
                )
        o = self._attend(q, keys, layout, entries, selection)
        o = rotate(o, rotation.conj().unsqueeze(2))
        return self.o_b_proj(self.o_a_proj(o.flatten(2)))

    def _attend(
        self, q: Tensor, keys: Tensor, layout: Layout, entries: Entries | None, selection: Selection | None
    ) -> Tensor:
        """Run the core over ranges of queries; the window of a range is cut into bands of keys."""
        b, s, h, _ = q.shape
        reach = self.sliding_window - 1
        band = max(self.sliding_window // 4, 16)
        width = band + reach + (self._entries_read(layout) if entries else 0)
        outputs = []
        sinks = self.sinks.clone()  # torch's FLOP counter cannot hook a parameter in inference mode
        most = min(LOGIT_ELEMENTS // (b * h * width), RANGE_QUERIES)
        ranges = list(query_ranges(s, band, most))
        # Split, because the gradient of slicing would fill a tensor of all queries for each range.
        parts = q.split_with_sizes([stop - begin for begin, stop, _ in ranges], dim=1)
        for part, (begin, stop, block) in zip(parts, ranges, strict=True):
            bands = keys[:, begin : stop + reach].unfold(1, block + reach, block)
            bias = layout.window_bias(begin, stop, block)
            far, far_bias = self._read(entries, selection, layout, begin, stop) if entries else (None, None)
            outputs.append(self.core(part, bands, bias, far, far_bias, sinks)[0])
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _visible(self, layout: Layout) -> Visible:
        assert self.compressor is not None
        return layout.windows(self.compressor.ratio).visible

    def _entries_read(self, layout: Layout) -> int:
        """At most this many entries a query: what bounds the memory of a range."""
        first, end = self._visible(layout).bounds(0, layout.n_tokens)
        return min(end - first, DENSE_FACTOR * self.index_topk) if self.is_sparse else end - first

    def _read(
        self, entries: Entries, selection: Selection | None, layout: Layout, begin: int, stop: int
    ) -> tuple[Tensor, Tensor | None]:
        """The entries for queries begin..stop-1 and their bias: shared and masked, or gathered."""
        visible = self._visible(layout)
        first, end = visible.bounds(begin, stop)
        if selection is None or end - first <= self.index_topk:
            return entries.range(first, end), visible.bias(begin, stop, first, end, layout.dtype)
        best = selection.best(begin, stop, first, end)
        if end - first <= DENSE_FACTOR * self.index_topk:
            # One column more, for the choices that stand for "none".
            bias = torch.full(
                (*best.shape[:2], end - first + 1), -torch.inf, dtype=layout.dtype, device=best.device
            )
            return entries.range(first, end), bias.scatter_(-1, best - first, 0)[..., :-1]
        if visible.certain(begin) - first >= self.index_topk:
            return entries.select(best), None
        bias = torch.zeros(best.shape, dtype=layout.dtype, device=best.device).masked_fill_(
            best == end, -torch.inf
        )
        return entries.select(best.clamp(max=end - 1)), bias


def query_ranges(s: int, block: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Cut s queries into ranges (begin, stop, block) of whole blocks, at most `most` queries if it can.

    What is left at the end is a range of one smaller block.
    """
    step = max(most // block, 1) * block
    whole = s // block * block
    for begin in range(0, whole, step):
        yield begin, min(begin + step, whole), block
    if whole < s:
        yield whole, s, s - whole
