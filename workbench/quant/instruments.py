"""What rounding does to a network: errors product by product and layer by layer, sizes, scales, choices.

Everything here returns plain rows or plain numbers. A signal-to-noise ratio is in decibels,
10 log10(Σ y² / Σ (y - ŷ)²): 6 dB a bit.

Report: V4, section 3.4 (recall of entries). The ratio of scales in a block: quant.scale_ratios.
Axes: b rows, s tokens, v vocab_size, n outputs, k inputs, w entries.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.model.attention import Attention, CSACompressor
from workbench.model.index_precision import recall
from workbench.model.indexer import index_scores
from workbench.model.layout import Layout
from workbench.model.transformer import Transformer
from workbench.quant.application import Calibration, apply
from workbench.quant.arithmetic.roles import role_of
from workbench.quant.formats import quantize
from workbench.quant.products import Product, sites, take_over
from workbench.quant.recipes import NOTHING, Recipe
from workbench.quant.rounded import AS_IS, RoundedProduct, multiply


def relative_error(exact: Tensor, rounded: Tensor) -> float:
    """‖rounded - exact‖ / ‖exact‖, Frobenius; 0 if both are zero."""
    exact, rounded = (t.detach().double() for t in (exact, rounded))
    size = exact.norm()
    return float((rounded - exact).norm() / size) if size else 0.0


def sqnr_db(exact: Tensor, rounded: Tensor) -> float:
    """The signal-to-noise ratio in decibels; infinite without noise."""
    error = relative_error(exact, rounded)
    return -20 * math.log10(error) if error else math.inf


class _Comparer:
    """A `Product` that passes on the unrounded result and keeps what rounding would have changed."""

    def __init__(self, product: RoundedProduct):
        self.product = product
        self.signal = self.noise = 0.0

    def weight(self, weight: Tensor) -> Tensor:
        self.rounded = self.product.weight(weight)
        return weight

    def __call__(self, x: Tensor, weight: Tensor, expert: int | None) -> Tensor:
        y = multiply(x, weight)
        own = self.rounded if expert is None else self.rounded[expert]
        noise = self.product(x, own.view_as(weight), expert) - y
        self.signal += float(y.double().square().sum())
        self.noise += float(noise.double().square().sum())
        return y


@torch.no_grad()
def product_errors(
    model: nn.Module, recipe: Recipe, input_ids: Tensor, calibration: Calibration | None = None
) -> list[dict[str, Any]]:
    """The error that each product makes by itself: its own factors rounded, everything before it exact.

    Yields rows {"product", "role", "sqnr_db", "relative_error"}, in the order of the modules.

    Raises:
        ValueError: a recipe is on the model already.
    """
    comparers: dict[str, _Comparer] = {}
    by_module: dict[nn.Module, dict[str, Product]] = {}
    found = sites(model)
    for name, site in found.items():
        if (rule := recipe.rule(site.module_name)) != NOTHING:
            comparers[name] = _Comparer(RoundedProduct(rule, (calibration or {}).get(name, AS_IS)))
            by_module.setdefault(site.module, {})[site.parameter] = comparers[name]
    undo = [take_over(module, products) for module, products in by_module.items()]
    try:
        model(input_ids)
    finally:
        for step in undo:
            step()
    return [
        dict(
            product=name,
            role=role_of(found[name].module_name),
            sqnr_db=10 * math.log10(seen.signal / seen.noise) if seen.noise else math.inf,
            relative_error=math.sqrt(seen.noise / seen.signal) if seen.signal else 0.0,
        )
        for name, seen in comparers.items()
    ]


@torch.no_grad()
def layer_errors(
    model: Transformer, recipe: str | Recipe, input_ids: Tensor, calibration: Calibration | None = None
) -> list[dict[str, Any]]:
    """How far the residual streams of a rounded network have drifted after each layer.

    Rows {"layer", "sqnr_db", "relative_error"}; errors of the layers before are in it.
    """
    exact = _streams_by_layer(model, input_ids)
    with apply(model, recipe, calibration):
        rounded = _streams_by_layer(model, input_ids)
    return [
        dict(layer=number, sqnr_db=sqnr_db(one, other), relative_error=relative_error(one, other))
        for number, (one, other) in enumerate(zip(exact, rounded, strict=True))
    ]


def _streams_by_layer(model: Transformer, input_ids: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, streams: seen.append(streams))
        for layer in model.model.layers
    ]
    try:
        model.streams(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@dataclass(frozen=True)
class Agreement:
    """Two networks on the same tokens.

    kl: mean KL(exact ‖ rounded) in nats a token. same_argmax: share of tokens whose likeliest successor is
    the same. largest_gap: the greatest difference of log-probabilities, over tokens and vocabulary.
    """

    kl: float
    same_argmax: float
    largest_gap: float


def agreement(exact: Tensor, rounded: Tensor) -> Agreement:
    """Compare logits of the same tokens, (..., v) twice."""
    p, q = (F.log_softmax(logits.float(), dim=-1) for logits in (exact, rounded))
    return Agreement(
        kl=float((p.exp() * (p - q)).sum(dim=-1).mean()),
        same_argmax=float((p.argmax(dim=-1) == q.argmax(dim=-1)).float().mean()),
        largest_gap=float((p - q).abs().max()),
    )


def size_histogram(
    x: Tensor, rms: Tensor | None = None, lowest: int = -12, highest: int = 8
) -> list[dict[str, Any]]:
    """How large numbers are beside a root mean square (their own if None), by powers of two.

    Rows {"log2_size", "share"}: the share of numbers with 2^i <= |x| / rms < 2^(i+1); the ends take the
    rest, zeros included.
    """
    x = x.detach().float()
    ratio = x.abs() / (x.square().mean().sqrt() if rms is None else rms)
    binade = torch.frexp(ratio).exponent.sub(1).masked_fill(ratio == 0, lowest).clamp(lowest, highest)
    counts = torch.bincount((binade - lowest).flatten(), minlength=highest - lowest + 1)
    return [dict(log2_size=lowest + i, share=n / x.numel()) for i, n in enumerate(counts.tolist())]


def scale_histogram(weight: Tensor, fmt: str) -> list[dict[str, Any]]:
    """Rows {"log2_scale", "blocks"}: how many blocks of a weight have a scale between 2^i and 2^(i+1)."""
    scales = quantize(weight.detach(), fmt).block_scales()
    if scales is None:
        raise ValueError(f"scale_histogram: {fmt!r} has no scales; choose a block format such as 'mxfp4_v4'")
    exponent, blocks = (torch.frexp(scales).exponent - 1).unique(return_counts=True)
    return [dict(log2_scale=int(e), blocks=int(n)) for e, n in zip(exponent, blocks, strict=True)]


class Operands(NamedTuple):
    """What meets in the products of a linear map: x (t, k), the weight (n, k), and dy (t, n) coming back."""

    x: Tensor
    weight: Tensor
    dy: Tensor


def operands(model: Transformer, name: str, input_ids: Tensor) -> Operands:
    """The operands of a linear map in one training step on these tokens; the model gets no gradient."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], y: Tensor) -> None:
        seen.extend((inputs[0], y))

    layer = model.get_submodule(name)
    hook = layer.register_forward_hook(keep)
    try:
        loss = model.loss(input_ids)
    finally:
        hook.remove()
    x, y = seen
    (dy,) = torch.autograd.grad(loss, y)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return Operands(x.detach().flatten(0, -2), weight.detach(), dy.flatten(0, -2))


@torch.no_grad()
def index_scores_of(layer: Attention, x: Tensor, layout: Layout) -> Tensor:
    """A CSA layer's index scores on given inputs, (b, s, w), -inf where an entry is not visible."""
    assert isinstance(layer.compressor, CSACompressor)
    indexer = layer.compressor.indexer
    windows = layout.windows(indexer.ratio)
    keys = indexer(x, windows, None)
    keys = keys.range(0, len(keys.flat) // keys.rows)
    scores = index_scores(*indexer.queries(x, layer.q_a_norm(layer.q_a_proj(x)), layout), keys)
    return scores.masked_fill(windows.visible.hidden(0, x.shape[1], 0, keys.shape[1]), -torch.inf)


def selection_recall(exact: Tensor, rounded: Tensor, topk: int) -> Tensor:
    """The share of each query's `topk` best entries that the rounded scores keep, where more are visible.

    Shapes: (b, s, w) twice -> (queries that see more than topk,).
    """
    has_choice = exact.isfinite().sum(dim=-1) > topk
    return recall(exact[has_choice], rounded[has_choice], topk)
