"""How the indexers learn: by imitating where attention looks, since the selection passes no gradient.

    p[w] = Σ_h P[h, w] / Σ_h Σ_w P[h, w]        what the heads together give to entry w, of the entries read
    q    = softmax over the same entries of I[w]
    L    = KL(p ‖ q), the mean over the queries of a row that read an entry, then over rows and layers

p and the indexer's inputs are detached, so no gradient reaches anything but the indexer. Where attention
reads every visible entry (dense), p covers all of them: the warm-up. Where the indexer selects (sparse), p
covers the selected ones only.

The V4 report does not print the indexer's objective. This is that of V3.2 (arXiv 2512.02556, section 2.1),
with two choices of ours: V4's window keys and sink take part in the softmax P but not in p, and
queries count equally within a row, rows equally within a batch.

Axes: b rows, s query tokens, h heads, w entries.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workbench.model.attention import Attention, CSACompressor
from workbench.model.indexer import Indexer, index_scores
from workbench.model.instruments import observe_attention
from workbench.model.layout import Layout

EVERY_ENTRY = 1 << 30  # an index_topk that leaves no entry out

AttentionInputs = Mapping[Attention, tuple[Tensor, Layout]]


def indexers(model: nn.Module) -> dict[Attention, Indexer]:
    """The layers that select entries, with what selects for them."""
    return {
        module: module.compressor.indexer
        for module in model.modules()
        if isinstance(module, Attention) and isinstance(module.compressor, CSACompressor)
    }


@contextmanager
def every_entry(model: nn.Module) -> Iterator[None]:
    """Within, CSA layers read every visible entry: dense attention, as we read the report's first phase.

    CSA is compressed sparse attention. The report says "dense attention" for it without saying over what;
    over the entries that a later selection chooses from, no weight changes its meaning between phases.
    """
    found = indexers(model)
    kept = [(layer, layer.index_topk, indexer.topk) for layer, indexer in found.items()]
    try:
        for layer, indexer in found.items():
            layer.index_topk = indexer.topk = EVERY_ENTRY
        yield
    finally:
        for layer, of_layer, of_indexer in kept:
            layer.index_topk, found[layer].topk = of_layer, of_indexer


@contextmanager
def attention_inputs(model: nn.Module) -> Iterator[AttentionInputs]:
    """Within, what every CSA layer was last called with, detached: x (b, s, d) and the layout."""
    seen: dict[Attention, tuple[Tensor, Layout]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, Layout]) -> None:
        assert isinstance(layer, Attention)
        seen[layer] = inputs[0].detach(), inputs[1]

    hooks = [layer.register_forward_pre_hook(note) for layer in indexers(model)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def indexer_loss(seen: AttentionInputs) -> Tensor:
    """The mean over CSA layers and rows of `layer_loss`, from what `attention_inputs` saw: -> ().

    Raises:
        ValueError: no CSA layer was seen.
    """
    if not seen:
        raise ValueError(
            "indexer_loss: got no inputs of CSA layers; needs a model that has some, run within "
            "attention_inputs; choose a configuration with compressed_sparse_attention layers"
        )
    return torch.stack([layer_loss(layer, x, layout).mean() for layer, (x, layout) in seen.items()]).mean()


def layer_loss(attention: Attention, x: Tensor, layout: Layout) -> Tensor:
    """KL(p ‖ q) of each row, the mean over its queries that read an entry; 0 for a row without any.

    Builds the attention weights of the whole rows at once: for training at small lengths.

    Shapes: x (b, s, d) -> (b,).
    Source: V3.2 report (arXiv 2512.02556), section 2.1.
    """
    x = x.detach()
    with torch.no_grad():
        looked = observe_attention(attention, x, layout)
    if looked.entries is None or looked.scores is None or looked.selected is None:
        return x.new_zeros(len(x), dtype=torch.float32)  # no window is complete
    is_read = _is_read(looked.scores, looked.selected)
    is_asked = is_read.any(dim=-1)
    p = looked.entries.sum(dim=1) * is_read
    p = p / p.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
    # Finite where nothing is read, so that no gradient is NaN; p is 0 there.
    logits = _scores(attention, x, layout).masked_fill(~is_read, torch.finfo(torch.float32).min)
    divergence = (torch.xlogy(p, p) - p * logits.log_softmax(dim=-1)).sum(dim=-1)
    count = is_asked.sum(dim=-1).clamp(min=1)
    return (divergence * is_asked).sum(dim=-1) / count


@torch.no_grad()
def index_recall(seen: AttentionInputs, topk: int) -> float:
    """The share of attention on entries that the topk best by index score hold, mean over layers and queries.

    Of the best that topk entries could hold, and only for queries that see more than topk: 1 is a perfect
    choice. Run the model within `every_entry`, so that attention can show where it would look.

    Raises:
        ValueError: no query sees more than topk entries.
    """
    shares = []
    for attention, (x, layout) in seen.items():
        looked = observe_attention(attention, x, layout)
        if looked.entries is None or looked.scores is None:
            continue
        has_choice = looked.scores.isfinite().sum(dim=-1) > topk
        p, scores = looked.entries.sum(dim=1)[has_choice], looked.scores[has_choice]
        if len(p):
            chosen = p.gather(-1, scores.topk(topk, dim=-1).indices).sum(dim=-1)
            shares.append(chosen / p.topk(topk, dim=-1).values.sum(dim=-1))
    if not shares:
        raise ValueError(
            f"index_recall: no query sees more than topk={topk} entries; needs longer rows or a smaller "
            f"topk; change one"
        )
    return float(torch.stack([share.mean() for share in shares]).mean())


def _is_read(scores: Tensor, selected: Tensor) -> Tensor:
    """Which entries each query reads: scores (b, s, w), selected (b, s, k) with -1 for none -> (b, s, w)."""
    place = selected.where(selected >= 0, scores.shape[-1])
    is_read = torch.zeros(*scores.shape[:-1], scores.shape[-1] + 1, dtype=torch.bool, device=scores.device)
    return is_read.scatter_(-1, place, True)[..., :-1]


def _scores(attention: Attention, x: Tensor, layout: Layout) -> Tensor:
    """I (b, s, w), with a graph that ends at the indexer's parameters."""
    indexer = indexers(attention)[attention]
    with torch.no_grad():
        q_latent = attention.q_a_norm(attention.q_a_proj(x))
    keys = indexer(x, layout.windows(indexer.ratio), None)
    assert keys is not None
    return index_scores(*indexer.queries(x, q_latent, layout), keys.range(0, len(keys.flat) // keys.rows))
