"""Formats without a scale: every number is rounded on its own."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quant.element import Element, Overflow
from workbench.quant.packing import pack_codes, packed_width, unpack_codes
from workbench.quant.quantized import Format, Quantized, Specials, finite_float32
from workbench.quant.rounding import Ties, check_choice


@dataclass(frozen=True)
class CastFormat(Format):
    """Elements as they are. `overflow` says what a finite number past the largest becomes."""

    element: Element
    ties: Ties = "even"
    overflow: Overflow = "saturate"

    def __post_init__(self) -> None:
        check_choice(f"CastFormat: {self.name}", "ties", self.ties, Ties)
        check_choice(f"CastFormat: {self.name}", "overflow", self.overflow, Overflow)

    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized:
        x, _ = finite_float32(x, specials)
        return Quantized(self.element.encode(x, self.ties, self.overflow, generator), None, self)

    def dequantize(self, quantized: Quantized) -> Tensor:
        return self.element.decode(quantized.codes)

    def block_scales(self, quantized: Quantized) -> None:
        return None

    @property
    def bits_per_value(self) -> float:
        return float(self._stored_bits)

    @property
    def _stored_bits(self) -> int:
        # TF32 is a way to multiply, not to store: in memory it is fp32 whose last 13 bits are zero.
        return 32 if self.element.bits > 16 else self.element.bits

    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        if self._stored_bits == 32:
            return {"codes": self.dequantize(quantized)}
        return {"codes": pack_codes(quantized.codes, self.element.bits)}

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        if self._stored_bits == 32:
            codes = self.element.encode(self.part(stored, "codes", shape, torch.float32))
        else:
            width = packed_width(shape[-1], self.element.bits)
            codes = unpack_codes(
                self.part(stored, "codes", (*shape[:-1], width), torch.uint8), self.element.bits
            )
        return Quantized(codes, None, self)
