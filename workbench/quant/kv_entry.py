"""V4's cache entry of 584 bytes: most channels in FP8, the rotary ones in BF16.

Bytes 0-447 hold the channels without rotation as E4M3, 448-575 the 64 rotary ones as BF16, 576-582 the
seven E8M0 scales of 64 channels each; byte 583 fills up.

Report: section 2.3.4. Source: the record that sparse decode kernels read (FlashMLA's MODEL1 layout, as a
port documents it).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quant.blocks import BlockFormat
from workbench.quant.element import Element
from workbench.quant.packing import pack_codes, unpack_codes
from workbench.quant.quantized import Format, Quantized, Specials, finite_float32

_ALIGNMENT = 8


@dataclass(frozen=True)
class KVEntryFormat(Format):
    """An entry of `plain_dims` channels in blocks, then `rope_dims` channels on their own.

    The codes of both lie side by side in one int32 tensor.
    """

    plain: BlockFormat
    rope: Element
    plain_dims: int
    rope_dims: int

    @property
    def record_bytes(self) -> int:
        """Bytes of one entry, rounded up to whole words of 8."""
        used = self.plain_dims + self.rope_dims * self.rope.bits // 8 + self._n_scales
        return -(-used // _ALIGNMENT) * _ALIGNMENT

    @property
    def _n_scales(self) -> int:
        assert self.plain.columns is not None
        return self.plain_dims // self.plain.columns

    @property
    def bits_per_value(self) -> float:
        return 8 * self.record_bytes / (self.plain_dims + self.rope_dims)

    def _cut(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        plain, rope = codes.split([self.plain_dims, self.rope_dims], dim=-1)
        return plain.to(torch.uint8), rope

    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized:
        x, _ = finite_float32(x, specials)
        width = self.plain_dims + self.rope_dims
        if x.shape[-1:] != (width,):
            raise ValueError(
                f"quantize: {self.name} got entries of {x.shape[-1] if x.ndim else 'no'} channels; it needs "
                f"{width}: {self.plain_dims} plain, then {self.rope_dims} rotary; choose another format for "
                f"other heads"
            )
        plain = self.plain.quantize(x[..., : self.plain_dims], generator, specials)
        rope = self.rope.encode(x[..., self.plain_dims :], overflow="spec")
        return Quantized(torch.cat((plain.codes.int(), rope), dim=-1), plain.scales, self)

    def dequantize(self, quantized: Quantized) -> Tensor:
        plain, rope = self._cut(quantized.codes)
        numbers = Quantized(plain, quantized.scales, self.plain).dequantize()
        return torch.cat((numbers, self.rope.decode(rope)), dim=-1)

    def block_scales(self, quantized: Quantized) -> Tensor | None:
        return self.plain.block_scales(quantized)

    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        plain, rope = self._cut(quantized.codes)
        assert quantized.scales is not None
        used = torch.cat((plain, pack_codes(rope, self.rope.bits), quantized.scales), dim=-1)
        return {"record": torch.nn.functional.pad(used, (0, self.record_bytes - used.shape[-1]))}

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        record = self.part(stored, "record", (*shape[:-1], self.record_bytes), torch.uint8)
        sizes = [self.plain_dims, self.rope_dims * self.rope.bits // 8, self._n_scales]
        plain, rope, scales = record[..., : sum(sizes)].split(sizes, dim=-1)
        codes = torch.cat((plain.int(), unpack_codes(rope, self.rope.bits)), dim=-1)
        return Quantized(codes, scales, self)
