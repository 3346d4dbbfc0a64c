"""Bytes of key-value cache, under a stated convention.

Per layer and sequence of N tokens, with one shared entry for keys and values:

    window 128 entries  +  ⌊N / m⌋ compressed entries  (+ ⌊N / m⌋ indexer keys in CSA)

Source: V4 report, sections 2.3.4 and 3.6.1; entry layouts of the released inference code.
CSA: compressed sparse attention. HCA: heavily compressed attention.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from workbench.config import CSA, SWA, ModelConfig

Tokens = int | npt.ArrayLike


@dataclass(frozen=True)
class EntryFormat:
    """How one cached vector is stored: bytes a channel, scales by block, rotary channels apart.

    `rope_bytes` None stores the rotary channels like the others.
    """

    channel_bytes: float
    rope_bytes: float | None = None
    block: int | None = None
    scale_bytes: int = 0
    pad_to: int = 1

    def entry_bytes(self, width: int, rope: int = 0, *, scales: bool = True, padded: bool = True) -> float:
        """Bytes of one vector of `width` channels, `rope` of them rotary."""
        apart = rope if self.rope_bytes is not None else 0
        plain = width - apart
        size = plain * self.channel_bytes + apart * (self.rope_bytes or 0)
        if scales and self.block:
            size += -(-plain // self.block) * self.scale_bytes
            if padded:
                size = -(-size // self.pad_to) * self.pad_to
        return size


@dataclass(frozen=True)
class CacheFormat:
    """A format for the attention entries and one for the indexer's keys."""

    entry: EntryFormat
    index_key: EntryFormat


_FP4_KEY = EntryFormat(0.5, block=32, scale_bytes=1)
FORMATS: dict[str, CacheFormat] = {
    # Every channel BF16, as the first serving engines kept it.
    "bf16": CacheFormat(EntryFormat(2), EntryFormat(2)),
    # V4: FP8 with one UE8M0 scale for 64 channels, BF16 rotary channels, padded to 8; FP4 index keys.
    "fp8_v4": CacheFormat(EntryFormat(1, rope_bytes=2, block=64, scale_bytes=1, pad_to=8), _FP4_KEY),
    # V3.2: FP8 with one FP32 scale for 128 channels, BF16 rotary channels; FP8 index keys, likewise.
    "fp8_v3.2": CacheFormat(
        EntryFormat(1, rope_bytes=2, block=128, scale_bytes=4), EntryFormat(1, block=128, scale_bytes=4)
    ),
    # V4.1: FP4 throughout, one E4M3 scale for 16 channels; FP4 index keys.
    "fp4_v4.1": CacheFormat(EntryFormat(0.5, block=16, scale_bytes=1), _FP4_KEY),
}
_RELEASED = {"deepseek_v4": "fp8_v4", "deepseek_v32": "fp8_v3.2"}

State = Literal["none", "windows", "windows and buffers"]


def released_format(config: ModelConfig) -> str:
    """The cache format of a model's own release: FORMATS key."""
    return _RELEASED.get(config.model_type, "bf16")


def kv_cache_bytes(
    config: ModelConfig,
    context_tokens: Tokens,
    *,
    cache_format: str | None = None,
    scales: bool = True,
    padded: bool = True,
    state: State = "windows",
) -> np.ndarray:
    """Bytes of cache for one sequence, for one context length or an array of them.

    Defaults: the format of the model's own release (`released_format`), scale bytes and padding
    counted, the fixed sliding windows of V4 counted and its small compressor buffers not.
    MTP blocks are left out.

    Shapes: context_tokens () or (n,) -> bytes, same shape, int64.
    Raises:
        ValueError: unknown format or state, or a negative number of tokens.
    Source: V4 report, sections 2.3.4 and 3.6.1; V3.2 report, section 2.
    """
    name = cache_format or released_format(config)
    if name not in FORMATS:
        raise ValueError(f"kv_cache_bytes: format {name!r} is unknown; choose one of {sorted(FORMATS)}")
    if state not in ("none", "windows", "windows and buffers"):
        raise ValueError(
            f"kv_cache_bytes: state {state!r} is unknown; choose 'none', 'windows' or 'windows and buffers'"
        )
    tokens = np.asarray(context_tokens, dtype=np.int64)
    if (tokens < 0).any():
        raise ValueError(f"kv_cache_bytes: context_tokens {tokens.min()} is negative; give 0 or more")
    fmt = FORMATS[name]
    width, rope = entry_width(config)
    entry = fmt.entry.entry_bytes(width, rope, scales=scales, padded=padded)
    key = fmt.index_key.entry_bytes(config.index_head_dim or 0, scales=scales, padded=padded)

    total = np.zeros(tokens.shape, dtype=np.float64)
    for kind, ratio, layers in _layers(config):
        if config.model_type != "deepseek_v4":
            total += layers * tokens * (entry + (key if config.index_topk else 0))
        elif kind != SWA:
            total += layers * (tokens // ratio) * (entry + (key if kind == CSA else 0))
    if state != "none":
        total += window_bytes(config, entry)
    if state == "windows and buffers":
        total += buffer_bytes(config)
    return total.astype(np.int64)


def growth_bytes_per_token(config: ModelConfig, **convention: object) -> float:
    """Bytes that one more token of context adds in the long run: the slope of kv_cache_bytes.

    Takes the conventions of kv_cache_bytes.
    """
    block = int(np.lcm.reduce([ratio for ratio in config.layer_ratios if ratio] or [1]))
    ends = kv_cache_bytes(config, np.array([0, block]), **convention)  # type: ignore[arg-type]
    return float(ends[1] - ends[0]) / block


def entry_width(config: ModelConfig) -> tuple[int, int]:
    """Channels cached per entry, and how many of them are kept apart as rotary."""
    if config.model_type == "deepseek_v4":
        return config.kv_head_dim, config.qk_rope_head_dim or 0
    if config.kv_lora_rank is not None:
        rope = config.qk_rope_head_dim or 0
        return config.kv_lora_rank + rope, rope
    return 2 * config.num_key_value_heads * config.kv_head_dim, 0


def window_bytes(config: ModelConfig, entry_bytes: float) -> float:
    """The sliding windows of V4: n_win entries a layer, whatever the context. 0 for other models."""
    if config.model_type != "deepseek_v4":
        return 0.0
    assert config.sliding_window
    return config.num_hidden_layers * config.sliding_window * entry_bytes


def buffer_bytes(config: ModelConfig) -> int:
    """Tokens not yet compressed: keys and gates in FP32, twice a window in CSA for the overlap.

    Source: state buffers of the released inference code.
    """
    total = 0
    for kind, ratio, layers in _layers(config):
        if ratio:
            overlap = 2 if kind == CSA else 1
            width = config.kv_head_dim + (config.index_head_dim or 0 if kind == CSA else 0)
            total += layers * 2 * (overlap * ratio) * (overlap * width) * 4
    return total


@lru_cache(maxsize=64)
def _layers(config: ModelConfig) -> tuple[tuple[str, int, int], ...]:
    """Kinds of layers, their ratio, and how many there are: a search over layouts asks very often."""
    kinds = Counter(zip(config.attention_types, config.layer_ratios, strict=True))
    return tuple((kind, ratio, layers) for (kind, ratio), layers in kinds.items())


def prefix_state_bytes_per_token(
    config: ModelConfig, every_tokens: int | None, **convention: object
) -> float:
    """Bytes of sliding-window state that an on-disk prefix cache keeps for each token.

    `every_tokens` 1 keeps every token's window entry (the full policy), p keeps the windows of every
    p-th position (periodic), None keeps none (zero: recompute instead).

    Source: V4 report, section 3.6.2.
    """
    fmt = FORMATS[released_format(config)].entry
    width, rope = entry_width(config)
    entry = fmt.entry_bytes(width, rope, **convention)  # type: ignore[arg-type]
    if every_tokens is None:
        return 0.0
    assert config.sliding_window
    kept = min(config.sliding_window, every_tokens)
    return config.num_hidden_layers * entry * kept / every_tokens


def recomputed_tokens(config: ModelConfig, every_tokens: int | None) -> int:
    """Most tokens that must be run again before a cached prefix can be continued.

    Without stored windows the last n_win · L tokens rebuild every layer's window, since layer l reaches
    n_win tokens further back than layer l + 1. With checkpoints every p tokens, at most p - 1.

    Source: V4 report, section 3.6.2.
    """
    assert config.sliding_window
    zero = config.sliding_window * config.num_hidden_layers
    return zero if every_tokens is None else min(every_tokens - 1, zero)
