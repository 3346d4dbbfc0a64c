"""Cambricon MLU fixed point: integers, a power of two, and where wanted a scale and an offset.

    value = (code - offset) · 2^position / scale,   code = round(x · scale / 2^position + offset)

for the whole tensor, halves away from zero. With n bits and a = amax:

    position             position = floor(log2 a) - (n - 2), scale 1: the step is a power of two
    position and scale   scale = 2^position · (2^(n - 1) - 1) / a: a becomes the largest integer
    offset               [min, max] covers all 2^n integers

A tensor of zeros has position 0 and scale 1. How the third mode finds its parameters is not published: the
code below takes the position of max - min and lets min be the least integer.

Source: Cambricon mlu-ops and CNNL samples; CNRT's quantised parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.quant.integers import IntegerFormat
from workbench.quant.packing import pack_codes, packed_width, unpack_codes
from workbench.quant.quantized import Format, Quantized, Specials, finite_float32
from workbench.quant.rounding import Ties

Mode = Literal["position", "position and scale", "offset"]
_LOW_BITS = 15


@dataclass(frozen=True)
class FixedPointFormat(Format):
    """MLU fixed point.

    Symmetric modes still use the least integer, which has no positive counterpart: under "position" an amax
    just below a power of two rounds to it on the negative side and is cut off on the positive.
    `Quantized.scales` is the position (int32), `tensor_scale` the scale and `offsets` the offset (fp32).
    31 bits are stored as two int16: code = high · 2^15 + low.
    """

    element: IntegerFormat
    mode: Mode
    ties: Ties = "away"

    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized:
        """Raises: ValueError, also where specials is "propagate": fixed point has no way to say NaN."""
        x, is_special = finite_float32(x, specials)
        if is_special.any():
            raise ValueError(
                f"quantize: {self.name} got {int(is_special.sum())} numbers not finite; fixed point has no "
                f"NaN; mend them first"
            )
        n, largest = self.element.bits, self.element.largest
        # The span of the numbers and of the integers that they are mapped to.
        low, high = x.aminmax() if x.numel() else (x.new_zeros(()), x.new_zeros(()))
        span = high - low if self.mode == "offset" else torch.maximum(-low, high)
        steps = 2 * largest + 1 if self.mode == "offset" else largest
        bits_of_steps = n - 1 if self.mode == "offset" else n - 2
        position = torch.frexp(span).exponent - 1 - bits_of_steps
        scale = _times_power(torch.tensor(steps, device=x.device), position) / span
        if self.mode == "position":
            scale = torch.ones_like(scale)
        position, scale = position.masked_fill(span == 0, 0), scale.masked_fill(span == 0, 1)
        offset = torch.zeros_like(scale)
        if self.mode == "offset":
            offset = -largest - 1 - _times_power(low * scale, -position).round()
        codes = self.element.encode(
            _times_power(x * scale, -position) + offset, self.ties, generator=generator
        )
        return Quantized(codes, position, self, tensor_scale=scale, offsets=offset)

    def dequantize(self, quantized: Quantized) -> Tensor:
        assert quantized.scales is not None
        assert quantized.offsets is not None and quantized.tensor_scale is not None
        number = self.element.decode(quantized.codes) - quantized.offsets
        return _times_power(number, quantized.scales) / quantized.tensor_scale

    def block_scales(self, quantized: Quantized) -> Tensor:
        assert quantized.scales is not None and quantized.tensor_scale is not None
        return (
            _times_power(torch.ones_like(quantized.tensor_scale), quantized.scales) / quantized.tensor_scale
        )

    @property
    def bits_per_value(self) -> float:
        return float(self._stored_bits)

    @property
    def _stored_bits(self) -> int:
        return 32 if self.element.bits > 16 else self.element.bits

    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        assert quantized.scales is not None
        assert quantized.offsets is not None and quantized.tensor_scale is not None
        parameters = {
            "position": quantized.scales, "scale": quantized.tensor_scale, "offset": quantized.offsets,
        }  # fmt: skip
        if self._stored_bits < 32:
            return {"codes": pack_codes(quantized.codes, self.element.bits)} | parameters
        # 31 - 15 bits are left: their first, the sign, is the sign of an int16.
        high, low = (quantized.codes >> _LOW_BITS).short(), (quantized.codes & 2**_LOW_BITS - 1).short()
        return {"high": high, "low": low} | parameters

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        position = self.part(stored, "position", (), torch.int32)
        scale, offset = (self.part(stored, role, (), torch.float32) for role in ("scale", "offset"))
        if self._stored_bits < 32:
            width = packed_width(shape[-1], self.element.bits)
            codes = self.part(stored, "codes", (*shape[:-1], width), torch.uint8)
            codes = unpack_codes(codes, self.element.bits)
        else:
            high, low = (self.part(stored, half, shape, torch.int16).int() for half in ("high", "low"))
            codes = (high << _LOW_BITS) + low & 2**self.element.bits - 1
        return Quantized(codes, position, self, tensor_scale=scale, offsets=offset)


def _times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """x · 2^exponent in fp32, through fp64: the power alone may be past fp32."""
    return (x.double() * torch.exp2(exponent.double())).float()
