"""HiF4, Huawei's 4-bit block format: 64 lanes of 4 bits under three levels of scale, 4.5 bits a value.

    value = E6M2 · 2^(E1 of its 8 + E1 of its 4) · lane,   lane = ±0, ±0.25, ... ±1.75

One 32-bit word holds the levels: bits 0-7 the E6M2 scale, bits 8-15 one exponent bit for every eight
lanes, bits 16-31 one for every four, neighbours together. The conversion rounds its arithmetic to BF16
where the hardware does: it multiplies with a BF16 reciprocal of the scale; dividing gives other codes.

Uncertain: which of two lanes has the low half of a byte (low first here, as in Ascend's FP4; an early
reference had it the other way), and how lanes round ties (away from zero here; the source leaves it free).

Source: HiFloat4 paper (arXiv 2602.11287); Ascend PTO architecture specification (hif4-scale, e6m2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from workbench.quant.elements import ELEMENTS
from workbench.quant.packing import pack_codes, unpack_codes
from workbench.quant.quantized import Format, Quantized, Specials, finite_float32

GROUP = 64
_SCALE, _LANE, _BF16 = ELEMENTS["e6m2"], ELEMENTS["e1m2"], ELEMENTS["bf16"]
_NAN_WORD = 0xFF


class ScaleLevels(NamedTuple):
    """The three levels of a group. Shapes: (..., groups), (..., groups, 8), (..., groups, 16)."""

    scale: Tensor  # E6M2, decoded
    of_8: Tensor  # 0 or 1
    of_4: Tensor  # 0 or 1


@dataclass(frozen=True)
class HiF4Format(Format):
    """Huawei's HiFloat4. `Quantized.scales` are the 32-bit words, in int64."""

    @property
    def bits_per_value(self) -> float:
        return 4.5

    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized:
        x, is_special = finite_float32(x, specials)
        x = _groups(x)
        is_lost = reduce(_groups(is_special), "... g lane -> ... g", "any") if is_special.any() else None
        if is_lost is not None:
            x = x.masked_fill(is_lost[..., None], 0)
        top_4 = reduce(x.abs(), "... g (four lane) -> ... g four", "max", lane=4)
        top_8 = reduce(top_4, "... g (eight two) -> ... g eight", "max", two=2)
        top = reduce(top_8, "... g eight -> ... g", "max")
        scale = _SCALE.encode(_BF16.round(top * _BF16.round(torch.tensor(1 / 7))))
        inverse = _BF16.round(1 / _SCALE.decode(scale))[..., None]
        of_8 = top_8 * inverse >= 4
        of_4 = top_4 * inverse * torch.exp2(-_twice(of_8).float()) >= 2
        shift = repeat(_twice(of_8).int() + of_4.int(), "... four -> ... (four lane)", lane=4)
        codes = _LANE.encode(x * inverse * torch.exp2(-shift.float()), "away")
        word = scale.long() + _bits(of_8, first=8) + _bits(of_4, first=16)
        if is_lost is not None:
            word = word.masked_fill(is_lost, _NAN_WORD)
        return Quantized(rearrange(codes, "... g lane -> ... (g lane)"), word, self)

    def levels(self, quantized: Quantized) -> ScaleLevels:
        """The scale words taken apart."""
        word = quantized.scales
        assert word is not None
        bits = word[..., None] >> torch.arange(32, device=word.device) & 1
        return ScaleLevels(
            _SCALE.decode((word & 0xFF).to(torch.uint8)), bits[..., 8:16].int(), bits[..., 16:].int()
        )

    def block_scales(self, quantized: Quantized) -> Tensor:
        """What each run of four lanes is multiplied with, all three levels. Shapes: -> fp32 (..., i / 4)."""
        scale, of_8, of_4 = self.levels(quantized)
        total = scale[..., None] * torch.exp2((_twice(of_8) + of_4).float())
        return rearrange(total, "... g four -> ... (g four)")

    def dequantize(self, quantized: Quantized) -> Tensor:
        lanes = _LANE.decode(quantized.codes)
        return lanes * repeat(self.block_scales(quantized), "... four -> ... (four lane)", lane=4)

    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        word = quantized.scales
        assert word is not None
        scale_bytes = word[..., None] >> 8 * torch.arange(4, device=word.device) & 0xFF
        return {"codes": pack_codes(quantized.codes, 4), "scales": scale_bytes.to(torch.uint8)}

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        n_groups = _n_groups(shape)
        codes = self.part(stored, "codes", (*shape[:-1], shape[-1] // 2), torch.uint8)
        scales = self.part(stored, "scales", (*shape[:-1], n_groups, 4), torch.uint8)
        word = (scales.long() << 8 * torch.arange(4, device=scales.device)).sum(-1)
        return Quantized(unpack_codes(codes, 4), word, self)


def _n_groups(shape: tuple[int, ...]) -> int:
    if not shape or shape[-1] % GROUP:
        raise ValueError(
            f"quantize: hif4 got rows of {shape[-1] if shape else 'no axis'}; it needs a multiple of "
            f"{GROUP}; pad the rows or choose a format with a smaller block"
        )
    return shape[-1] // GROUP


def _groups(x: Tensor) -> Tensor:
    _n_groups(tuple(x.shape))
    return rearrange(x, "... (g lane) -> ... g lane", lane=GROUP)


def _twice(of_8: Tensor) -> Tensor:
    return repeat(of_8, "... eight -> ... (eight two)", two=2)


def _bits(flags: Tensor, first: int) -> Tensor:
    """Flags as bits of a word, upwards from bit `first`. Shapes: (..., n) -> int64 (...)."""
    place = torch.arange(first, first + flags.shape[-1], device=flags.device)
    return (flags.long() << place).sum(-1)
