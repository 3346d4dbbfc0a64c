"""Ascend's integers: asymmetric by token, and static with a scale found beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quant.integers import IntegerFormat
from workbench.quant.packing import pack_codes, packed_width, unpack_codes
from workbench.quant.quantized import Format, Quantized, Specials, finite_float32
from workbench.quant.rounding import Ties


@dataclass(frozen=True)
class AffineFormat(Format):
    """Integers that cover [min, max] of a token: value = (code - offset) · scale.

    scale = (max - min) / 255 and offset = 127 - max / scale for int8, 15 and 7 for int4, both fp32: the
    offset is no integer. A row of one number x has scale |x| / 127, or 1 if it is all zeros; what the
    operator does there is not documented.

    Source: CANN, aclnnDynamicQuantV2.
    """

    element: IntegerFormat
    ties: Ties = "even"

    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized:
        x, is_special = finite_float32(x, specials)
        if x.shape[-1:] == (0,):
            raise ValueError(
                f"quantize: {self.name} got rows of no numbers, which have no range; it needs one number or "
                f"more a row; leave this tensor out"
            )
        is_lost = is_special.any(dim=-1, keepdim=True)
        x = x.masked_fill(is_lost, 0)
        low, high = x.amin(dim=-1, keepdim=True), x.amax(dim=-1, keepdim=True)
        largest = self.element.largest
        scale = (high - low) / (2 * largest + 1)
        flat = torch.where(high == 0, torch.ones_like(high), high.abs() / largest)
        scale = torch.where(scale == 0, flat, scale)
        offset = largest - high / scale
        codes = self.element.encode(x / scale + offset, self.ties, generator=generator)
        scale = scale.masked_fill(is_lost, torch.nan)
        return Quantized(codes, scale, self, offsets=offset)

    def dequantize(self, quantized: Quantized) -> Tensor:
        assert quantized.offsets is not None and quantized.scales is not None
        return (self.element.decode(quantized.codes) - quantized.offsets) * quantized.scales

    def block_scales(self, quantized: Quantized) -> Tensor | None:
        return quantized.scales

    @property
    def bits_per_value(self) -> float:
        return float(self.element.bits)

    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        assert quantized.scales is not None and quantized.offsets is not None
        codes = pack_codes(quantized.codes, self.element.bits)
        return {"codes": codes, "scales": quantized.scales, "offsets": quantized.offsets}

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        width = packed_width(shape[-1], self.element.bits)
        codes = self.part(stored, "codes", (*shape[:-1], width), torch.uint8)
        scales, offsets = (
            self.part(stored, role, (*shape[:-1], 1), torch.float32) for role in ("scales", "offsets")
        )
        return Quantized(unpack_codes(codes, self.element.bits), scales, self, offsets=offsets)


def ascend_quant(
    x: Tensor, scale: float, offset: float, element: IntegerFormat, converts_to_half: bool = True
) -> Tensor:
    """Static quantisation with a scale and an offset found beforehand: codes of round(x · scale + offset).

    Shapes: float (...) -> uint8 (...).
    `scale` multiplies, so it is the inverse of a symmetric format's. The vector unit first converts x, scale
    and offset to fp16 and computes there, ties to even; that it rounds between product and sum, too, is our
    reading. Without `converts_to_half` everything is fp32.

    Raises:
        ValueError: x is no finite float tensor.
    Source: CANN, AscendQuant.
    """
    x, _ = finite_float32(x, "raise")
    dtype = torch.float16 if converts_to_half else torch.float32
    product = x.to(dtype) * torch.tensor(scale, dtype=dtype)
    return element.encode(product + torch.tensor(offset, dtype=dtype))
