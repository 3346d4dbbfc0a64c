"""Floating-point operations of a token and of a prefill, under a stated convention.

One token at context N costs

    2 · P_linear  +  Σ_layers 4 · h · c · (entries attended)  +  Σ_CSA 2 · h_I · c_I · ⌊N / m⌋

where a multiply-add counts as two, and the entries are the window plus min(k, ⌊N/m⌋) in CSA or
⌊N/m'⌋ in HCA. The report sums "equivalent FP8 FLOPs": `FlopWeights` says what each precision weighs.

Source: V4 report, section 2.3.4 and figure 1.
CSA: compressed sparse attention. HCA: heavily compressed attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.accounting.kv_cache import Tokens
from workbench.accounting.tensors import tensors
from workbench.config import CSA, SWA, ModelConfig


@dataclass(frozen=True)
class FlopWeights:
    """What one operation counts for, by what it multiplies. All 1: plain FLOPs.

    linear: FP8 or FP4 weights with FP8 activations; linear_bf16: weights stored in BF16 or FP32
    (router, compressors, hyper-connections); head: the output projection, 0 leaves it out; core:
    attention scores and values; index_fp4, index_fp8: indexer scores in V4 and in V3.2.
    """

    linear: float = 1.0
    linear_bf16: float = 1.0
    head: float = 1.0
    core: float = 1.0
    index_fp4: float = 1.0
    index_fp8: float = 1.0


PLAIN = FlopWeights()
COMPONENTS = ("linear", "linear_bf16", "head", "core", "index_fp4", "index_fp8")


def flop_per_token(
    config: ModelConfig,
    context_tokens: Tokens,
    *,
    weights: FlopWeights = PLAIN,
    active_parameters: float | None = None,
    absorbed: bool = True,
) -> np.ndarray:
    """FLOPs to decode one token that sees `context_tokens` tokens, itself included.

    Defaults: every operation counts alike, the linear maps are counted from their shapes
    (`active_parameters` replaces that count by a nominal one), and latent attention runs absorbed, as
    in decoding: heads attend in the latent space. MTP blocks and the embedding lookup cost nothing here.

    Shapes: context_tokens () or (n,) -> FLOPs, same shape, float64.
    Raises:
        ValueError: fewer than one token of context.
    Source: V4 report, section 2.3.4.
    """
    parts = flop_components(config, context_tokens, absorbed=absorbed)
    return _weighted(parts, weights, active_parameters, tokens=np.ones_like(parts["linear"]))


def flop_per_prefill(
    config: ModelConfig,
    prompt_tokens: Tokens,
    *,
    weights: FlopWeights = PLAIN,
    active_parameters: float | None = None,
    absorbed: bool = False,
) -> np.ndarray:
    """FLOPs to read a prompt: flop_per_token summed over its positions, in closed form.

    Defaults as flop_per_token, but latent attention runs un-absorbed, which is cheaper when all keys
    are at hand; V3.2's sparse attention is absorbed always. The head is counted at every position.

    Shapes: prompt_tokens () or (n,) -> FLOPs, same shape, float64.
    Raises:
        ValueError: fewer than one token.
    """
    parts = flop_components(config, prompt_tokens, absorbed=absorbed, summed=True)
    return _weighted(parts, weights, active_parameters, tokens=np.asarray(prompt_tokens, dtype=np.float64))


def _weighted(
    parts: dict[str, np.ndarray], weights: FlopWeights, active_parameters: float | None, tokens: np.ndarray
) -> np.ndarray:
    if active_parameters is not None:
        # A nominal size includes every linear map: what is not BF16 or the head is FP8.
        parts["linear"] = 2 * active_parameters * tokens - parts["linear_bf16"] - parts["head"]
    return np.asarray(sum(getattr(weights, name) * parts[name] for name in COMPONENTS))


def flop_components(
    config: ModelConfig, context_tokens: Tokens, *, absorbed: bool = True, summed: bool = False
) -> dict[str, np.ndarray]:
    """Unweighted FLOPs by component; with `summed`, over all positions 1 … context_tokens.

    Shapes: context_tokens () or (n,) -> one array of that shape for each of COMPONENTS.
    Raises:
        ValueError: fewer than one token.
    """
    n = np.asarray(context_tokens, dtype=np.float64)
    if (n < 1).any():
        raise ValueError(f"flop_components: context_tokens {n.min():g} is too small; give 1 or more")
    parts = {name: np.zeros(n.shape) for name in COMPONENTS}
    for name, flop in linear_flop(config).items():
        parts[name] = np.full(n.shape, flop) * (n if summed else 1)

    # What a query attends to depends on the position alone, so equal layers are counted once.
    layers = list(zip(config.attention_types, config.layer_ratios, strict=True))
    for kind, ratio in set(layers):
        count = layers.count((kind, ratio))
        per_entry = core_flop_per_entry(config, absorbed=absorbed)
        parts["core"] = parts["core"] + count * per_entry * _attended(config, kind, ratio, n, summed)
        if kind in (CSA, "latent_sparse_attention"):
            assert config.index_n_heads and config.index_head_dim
            keys = _floor_sum(n, ratio or 1) if summed else n // (ratio or 1)
            name = "index_fp4" if kind == CSA else "index_fp8"
            parts[name] = parts[name] + count * 2 * config.index_n_heads * config.index_head_dim * keys
    return parts


def linear_flop(config: ModelConfig) -> dict[str, float]:
    """FLOPs of the weights one token multiplies, by the precision they are stored in."""
    flop = {"linear": 0.0, "linear_bf16": 0.0, "head": 0.0}
    for row in tensors(config):
        if row.is_matmul and row.part == "trunk":
            is_low = row.stored in ("FP8", "FP4") or config.quantization_config is None
            name = "head" if row.kind == "lm_head" else "linear" if is_low else "linear_bf16"
            flop[name] += 2 * row.active
    if config.tie_word_embeddings:
        flop["head"] = 2 * config.vocab_size * config.hidden_size
    return flop


def core_flop_per_entry(config: ModelConfig, *, absorbed: bool = True) -> float:
    """Scores and values of all heads of one layer against one cached entry."""
    heads = config.num_attention_heads
    if config.kv_lora_rank is None:
        return 4 * heads * config.kv_head_dim
    assert config.qk_nope_head_dim and config.qk_rope_head_dim and config.v_head_dim
    if absorbed or config.index_topk:
        return 2 * heads * (config.kv_lora_rank + config.qk_rope_head_dim + config.kv_lora_rank)
    return 2 * heads * (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim)


def entries_attended(
    config: ModelConfig, context_tokens: Tokens, kind: str, ratio: int = 0, *, summed: bool = False
) -> np.ndarray:
    """Keys that the last of `context_tokens` tokens attends to in a layer of this kind and ratio.

    With `summed`, all the tokens 1 … context_tokens together.
    """
    return _attended(config, kind, ratio, np.asarray(context_tokens, dtype=np.float64), summed)


def _attended(config: ModelConfig, kind: str, ratio: int, n: np.ndarray, summed: bool) -> np.ndarray:
    if kind == "latent_sparse_attention":
        assert config.index_topk
        return clipped_sum(n, 1, config.index_topk) if summed else np.minimum(n, config.index_topk)
    if config.sliding_window is None:
        return n * (n + 1) / 2 if summed else n
    window = config.sliding_window
    seen = clipped_sum(n, 1, window) if summed else np.minimum(n, window)
    if kind == SWA:
        return seen
    limit = config.index_topk if kind == CSA else np.inf
    assert limit is not None
    return seen + (clipped_sum(n, ratio, limit) if summed else np.minimum(limit, n // ratio))


def _floor_sum(n: np.ndarray, m: int) -> np.ndarray:
    """Σ over i = 1 … n of ⌊i / m⌋."""
    whole, rest = n // m, n % m
    return m * whole * (whole - 1) / 2 + whole * (rest + 1)


def clipped_sum(n: np.ndarray, m: int, limit: float) -> np.ndarray:
    """Σ over i = 1 … n of min(limit, ⌊i / m⌋)."""
    if np.isinf(limit):
        return _floor_sum(n, m)
    # From i = m · limit on, the term is the limit.
    full = np.maximum(n - (m * limit - 1), 0)
    return _floor_sum(n - full, m) + limit * full
