"""A small V4 on a real text, trained for a minute: weights and scores that are worth rounding.

The loop is the shortest that trains (AdamW, warm-up, cosine, clipping).

Report: V3.2 (arXiv 2512.02556), section 2.1, for the indexer's loss.
Axes: b rows, s tokens, h heads, w entries.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from workbench.config import CSA, HCA, SWA, ModelConfig, load_config
from workbench.model.attention import Attention, CSACompressor
from workbench.model.indexer import Indexer
from workbench.model.instruments import observe_attention
from workbench.model.layout import Layout
from workbench.model.transformer import Transformer

EVERY_ENTRY = 1 << 30  # an index_topk that selects nothing away


def study_config(vocab_size: int) -> ModelConfig:
    """A V4 of 2 million parameters: one layer of each kind of attention, matrices of whole FP8 blocks."""
    return load_config("mini").replace(
        vocab_size=vocab_size, hidden_size=128, num_hidden_layers=3, num_nextn_predict_layers=0,
        layer_types=(SWA, CSA, HCA), compress_ratios=(0, 4, 16), num_hash_layers=1, sliding_window=32,
        num_attention_heads=4, head_dim=64, qk_rope_head_dim=32, q_lora_rank=128, o_lora_rank=64,
        index_n_heads=4, index_head_dim=32, index_topk=16, n_routed_experts=8, moe_intermediate_size=128,
        initializer_range=0.06,
    )  # fmt: skip


def draw_batches(ids: Tensor, rows: int, length: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of stretches of a text, drawn at random. ids (tokens,) -> (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(len(ids) - length, (rows, 1), generator=generator)
        yield ids[start + torch.arange(length)]


def train(
    model: Transformer, batches: Iterator[Tensor], steps: int, lr: float, warmup: int = 10
) -> Iterator[float]:
    """Train in place and yield every step's loss; the rate rises over `warmup` steps and falls to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
    for step, ids in enumerate(islice(batches, steps)):
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / warmup, 1) * cosine
        loss = model.loss(ids)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of independent runs and its 95% interval, by Student's t.

    Raises:
        ValueError: fewer than two runs.
    """
    from scipy import stats

    if len(values) < 2:
        raise ValueError(f"mean_interval: got {len(values)} runs; an interval takes two; run another seed")
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return mean, mean - reach, mean + reach


@torch.no_grad()
def held_out_loss(model: Transformer, batches: Sequence[Tensor]) -> float:
    """The mean loss in nats a token over batches of one size."""
    return sum(model.loss(ids).item() for ids in batches) / len(batches)


def train_indexers(
    model: Transformer, batches: Iterator[Tensor], steps: int, lr: float = 1e-2
) -> list[float]:
    """Teach the indexers where attention looks when it may read every entry; returns the losses.

    The target is the probability that all heads together give to an entry, of what they give to entries.
    Nothing else of the network changes.
    """
    layers = [m for m in model.modules() if isinstance(m, Attention) and m.is_sparse]
    own = [p for layer in layers for p in _indexer(layer).parameters()]
    optimizer = torch.optim.AdamW(own, lr=lr)
    losses = []
    for ids in islice(batches, steps):
        terms = [indexer_loss(layer, *seen) for layer, seen in attention_inputs(model, ids).items()]
        optimizer.zero_grad()
        loss = torch.stack(terms).mean()
        loss.backward(inputs=own)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def attention_inputs(model: Transformer, ids: Tensor) -> dict[Attention, tuple[Tensor, Layout]]:
    """What every CSA layer is called with on a batch (b, s)."""
    seen: dict[Attention, tuple[Tensor, Layout]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, Layout]) -> None:
        assert isinstance(layer, Attention)
        seen[layer] = inputs[0], inputs[1]

    layers = [m for m in model.modules() if isinstance(m, Attention) and m.is_sparse]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        model.streams(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def indexer_loss(layer: Attention, x: Tensor, layout: Layout) -> Tensor:
    """KL(attention's own choice ‖ softmax of the index scores), meaned over queries that see an entry.

    Source: V3.2 report, dense warm-up of the indexer.
    """
    indexer = _indexer(layer)
    topk, indexer.topk = indexer.topk, EVERY_ENTRY
    try:
        seen = observe_attention(layer, x, layout)
    finally:
        indexer.topk = topk
    assert seen.entries is not None and seen.scores is not None
    is_asked = seen.scores.isfinite().any(dim=-1)
    target = seen.entries.sum(dim=1)[is_asked].detach()
    target = target / target.sum(dim=-1, keepdim=True)
    log_q = seen.scores[is_asked].log_softmax(dim=-1)
    return (torch.xlogy(target, target) - target * log_q.masked_fill(target == 0, 0)).sum(dim=-1).mean()


def _indexer(layer: Attention) -> Indexer:
    assert isinstance(layer.compressor, CSACompressor)
    return layer.compressor.indexer
