"""What a network's caches hold, and what its indexer compares, in few bits.

Rounding happens where a value enters a cache, before anything reads it, so a pass over a whole text and
step-by-step decoding read the same numbers. Index queries and keys are rotated (see hadamard.py) and then
rounded; the scores that entries are chosen by are rounded last.

Report: V4, sections 2.3.4 and 3.4.
Axes: b rows, s tokens, w windows, c channels, r rotary channels (the last ones), h index heads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from workbench.model.attention import Attention
from workbench.model.cache import CompressedState, LayerState
from workbench.model.compressor import Compressor
from workbench.model.entries import Entries
from workbench.model.indexer import Indexer, Selection
from workbench.model.layout import Layout
from workbench.model.windows import Windows
from workbench.quant.fake import fake_quantize
from workbench.quant.hadamard import rotate_blocks
from workbench.quant.quantized import Format
from workbench.quant.swap import Front, swap

Round = Callable[[Tensor], Tensor]
SCORE_DTYPES = {None: torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def round_entry(x: Tensor, fmt: str | Format, rope_dims: int) -> Tensor:
    """Keys and values as a cache holds them: the rotary channels in BF16, the others in a format.

    Shapes: (..., c) -> (..., c).
    """
    still, turned = x.split([x.shape[-1] - rope_dims, rope_dims], dim=-1)
    return torch.cat((fake_quantize(still, fmt), fake_quantize(turned, "bf16")), dim=-1)


def round_index(x: Tensor, fmt: str | Format | None) -> Tensor:
    """Index queries or keys as they are compared: rotated, then rounded; None leaves them as they are."""
    return x if fmt is None else fake_quantize(rotate_blocks(x), fmt)


class _RoundedLayout:
    """A layout whose window keys are rounded as they come in."""

    def __init__(self, layout: Layout, rounding: Round):
        self._layout, self._rounding = layout, rounding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layout, name)

    def keys(self, kv: Tensor, state: Tensor | None) -> Tensor:
        return self._layout.keys(self._rounding(kv), state)


class _RoundedWindows:
    """Windows whose entries are rounded as they come in."""

    def __init__(self, windows: Windows, rounding: Round):
        self._windows, self._rounding = windows, rounding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._windows, name)

    def collect(self, entries: Tensor | None, state: CompressedState | None) -> Entries | None:
        return self._windows.collect(None if entries is None else self._rounding(entries), state)


class _RoundsKeys(Front, Attention):
    """Attention with rounded window keys."""

    kv_format: str | Format

    def forward(self, x: Tensor, layout: Layout, state: LayerState | None = None) -> Tensor:
        rope_dims = 2 * layout.rotation(self.rule).shape[-1]
        rounded: Any = _RoundedLayout(layout, lambda kv: round_entry(kv, self.kv_format, rope_dims))
        return super().forward(x, rounded, state)


class _RoundsEntries(Front, Compressor):
    """A compressor with rounded entries."""

    kv_format: str | Format

    def forward(self, x: Tensor, windows: Windows, state: CompressedState | None) -> Entries | None:
        def rounding(entries: Tensor) -> Tensor:
            return round_entry(entries, self.kv_format, 2 * windows.rotation.shape[-1])

        rounded: Any = _RoundedWindows(windows, rounding)
        return super().forward(x, rounded, state)


class _RoundsIndex(Front, Indexer):
    """An indexer that compares rounded queries and keys, and chooses by rounded scores."""

    index_format: str | Format | None
    score_dtype: torch.dtype

    def forward(self, x: Tensor, windows: Windows, state: CompressedState | None) -> Entries | None:
        rounded: Any = _RoundedWindows(windows, lambda keys: round_index(keys, self.index_format))
        return super().forward(x, rounded, state)

    def queries(self, x: Tensor, q_latent: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        q, weights = super().queries(x, q_latent, layout)
        return round_index(q, self.index_format), weights

    def select(
        self, x: Tensor, q_latent: Tensor, layout: Layout, state: CompressedState | None
    ) -> Selection | None:
        found = super().select(x, q_latent, layout, state)
        if found is None:
            return None
        return _RoundedSelection(
            found.q, found.weights, found.keys, found.visible, found.topk, score_dtype=self.score_dtype
        )


@dataclass(frozen=True)
class _RoundedSelection(Selection):
    """A selection by scores that are cut to a shorter type just before the largest are looked for."""

    score_dtype: torch.dtype

    def _best(self, *args: Any) -> Tensor:
        with _ShortTopK(self.score_dtype):
            return super()._best(*args)


class _ShortTopK(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.topk:
            args = (args[0].to(self.dtype), *args[1:])
        return func(*args, **(kwargs or {}))


def hold_keys_in(attention: Attention, fmt: str | Format) -> list[Callable[[], None]]:
    """Round what a layer's caches of keys and values take in; returns what undoes it.

    Raises:
        ValueError: as `swap`.
    """
    undo = [swap(attention, _RoundsKeys, kv_format=fmt)]
    if attention.compressor is not None:
        undo.append(swap(attention.compressor, _RoundsEntries, kv_format=fmt))
    return undo


def compare_in(indexer: Indexer, fmt: str | Format | None, scores: str | None) -> Callable[[], None]:
    """Round an indexer's queries and keys to a format, and its scores to "bf16" or "fp16"; returns the undo.

    Raises:
        ValueError: as `swap`.
    """
    return swap(indexer, _RoundsIndex, index_format=fmt, score_dtype=SCORE_DTYPES[scores])
