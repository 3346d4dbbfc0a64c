"""Blocks of elements that share a scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from workbench.quant.element import Element
from workbench.quant.floats import FloatFormat
from workbench.quant.packing import pack_codes, packed_width, unpack_codes
from workbench.quant.quantized import Format, Quantized, Specials, finite_float32
from workbench.quant.rounding import Ties, check_choice
from workbench.quant.scales import Rule, power_of_two_codes

Order = Literal["div", "mul_inv"]
"""With fp32 scales s = amax / largest: x / s, or x · (largest / amax). BF16 numbers hit so many exact ties
that the two differ in one code of a thousand. With powers of two there is no difference."""


class Levels(NamedTuple):
    """The scales of a tensor, as stored: one a block, and with two levels one for all."""

    scales: Tensor
    tensor_scale: Tensor | None = None


@dataclass(frozen=True)
class BlockFormat(Format):
    """Elements in blocks of `rows` × `columns`, over the last two axes, that share a scale.

    rows: 1 runs along the last axis only; None puts the whole tensor under one scale.
    columns: None for a whole row.
    scale: the format of the scales, E8M0 for the power-of-two rules; None is fp32.
    least_amax: an amax below counts as that; least_scale: a scale below counts as that. They guard blocks
        of zeros, and which one a library has decides the scale that it stores for them.
    cuts_blocks: a last block may be cut short, as in DeepSeek's weights; else sizes have to divide.
    """

    element: Element
    rows: int | None
    columns: int | None
    scale: Element | None
    rule: Rule
    ties: Ties = "even"
    order: Order = "div"
    least_amax: float = 0.0
    least_scale: float = 0.0
    cuts_blocks: bool = False

    def __post_init__(self) -> None:
        for field, choices in (("rule", Rule), ("ties", Ties), ("order", Order)):
            check_choice(f"BlockFormat: {self.name}", field, getattr(self, field), choices)
        if any(size is not None and size < 1 for size in (self.rows, self.columns)):
            raise ValueError(
                f"BlockFormat: {self.name} got blocks of {self.rows} × {self.columns}; sizes are whole "
                f"numbers from 1, or None for all; correct them"
            )
        is_power = self.scale is not None and self.scale.name == "e8m0"
        if is_power == (self.rule == "amax") or (is_power and not isinstance(self.element, FloatFormat)):
            raise ValueError(
                f"BlockFormat: {self.name} got rule {self.rule!r} for {self.element.name} with scales in "
                f"{self.scale.name if self.scale else 'fp32'}; floor, ceil, rceil and even give floats "
                f"powers of two, which e8m0 stores; amax gives any number; choose a pair that fits"
            )
        if self.order == "mul_inv" and (self.scale is not None or self.least_amax <= 0):
            raise ValueError(
                f"BlockFormat: {self.name} got order 'mul_inv' with rounded scales or without least_amax; it "
                f"divides by the amax of a block with an fp32 scale; choose order 'div', or scale None and a "
                f"guard"
            )

    # Shapes

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Scales of a tensor.

        Raises:
            ValueError: a size is no multiple of the block's.
        """
        if self.rows is None:
            return ()
        if len(shape) < (1 if self.rows == 1 else 2):
            raise ValueError(
                f"quantize: {self.name} got shape {tuple(shape)}; blocks of {self.rows} rows need two axes; "
                f"reshape it"
            )
        sizes = [(shape[-1], self.columns or shape[-1], "columns")]
        if len(shape) > 1:
            sizes.insert(0, (shape[-2], self.rows, "rows"))
        for size, block, axis in sizes:
            if size % block and not self.cuts_blocks:
                raise ValueError(
                    f"quantize: {self.name} got {size} {axis}; it needs a multiple of {block}; pad the "
                    f"tensor or choose a format with a smaller block"
                )
        return (*shape[:-2], *(-(-size // block) for size, block, _ in sizes))

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Bytes of a tensor's codes, once packed."""
        return (*shape[:-1], packed_width(shape[-1], self.element.bits))

    def shape_of(self, codes: Tensor) -> tuple[int, ...]:
        """How many numbers packed codes stand for."""
        return (*codes.shape[:-1], codes.shape[-1] * 8 // self.element.bits)

    @property
    def is_packed(self) -> bool:
        """Whether a byte holds more than one code."""
        return self.element.bits < 8

    def _split(self, x: Tensor) -> Tensor:
        """(..., o, i) -> (b, R, r, C, c), the last blocks filled with zeros."""
        self.scale_shape(tuple(x.shape))  # refuses sizes that do not fit
        if self.rows is None and not x.numel():
            x = x.new_zeros(1, 1)  # the one scale of no numbers, such as an expert without tokens
        elif self.rows is None or x.ndim < 2:
            x = x.reshape(1, -1)
        rows, columns = self.rows or 1, self.columns or x.shape[-1]
        x = F.pad(x, (0, -x.shape[-1] % columns, 0, -x.shape[-2] % rows))
        x = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
        return rearrange(x, "b (R r) (C c) -> b R r C c", r=rows, c=columns)

    def _merge(self, blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What `_split` did, undone."""
        x = rearrange(blocks, "b R r C c -> b (R r) (C c)")
        if self.rows is None or len(shape) < 2:
            return x.flatten()[: math.prod(shape)].reshape(shape)
        return x[:, : shape[-2], : shape[-1]].reshape(shape).contiguous()

    # Rounding

    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized:
        x, is_special = finite_float32(x, specials)
        is_lost = None
        blocks = self._split(x)
        if is_special.any():
            # A block's scale says NaN, for all of it. Its codes are zeros: not every element has a NaN.
            is_lost = reduce(self._split(is_special.float()), "b R r C c -> b R 1 C 1", "max") > 0
            blocks = blocks.masked_fill(is_lost, 0)
        amax = reduce(blocks.abs(), "b R r C c -> b R 1 C 1", "max")
        codes, levels = self._round(blocks, amax, generator)
        scales = levels.scales
        if is_lost is not None:
            scales = scales.masked_fill(is_lost, self._nan_scale)
        shape = tuple(x.shape)
        return Quantized(
            self._merge(codes, shape), scales.reshape(self.scale_shape(shape)), self, levels.tensor_scale
        )

    def _round(
        self, blocks: Tensor, amax: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Levels]:
        """Codes of the blocks, and the scales. Shapes: (b, R, r, C, c), (b, R, 1, C, 1)."""
        levels = Levels(self._scales(amax))
        if self.order == "mul_inv":
            ratio = blocks * (self.element.largest / amax.clamp(min=self.least_amax))
        else:
            ratio = blocks / self.multiplier(*levels)
        return self.element.encode(ratio, self.ties, generator=generator), levels

    def _scales(self, amax: Tensor) -> Tensor:
        """The scale of each block, as stored."""
        amax = amax.clamp(min=self.least_amax)
        if self.rule != "amax":
            assert isinstance(self.element, FloatFormat)
            return power_of_two_codes(amax, self.element, self.rule)
        return self._stored(amax / self.element.largest)

    def _stored(self, scale: Tensor) -> Tensor:
        scale = scale.clamp(min=self.least_scale)
        return scale if self.scale is None else self.scale.encode(scale)

    def multiplier(self, scales: Tensor, tensor_scale: Tensor | None = None) -> Tensor:
        """What the elements of a block are multiplied with, in fp32."""
        scale = scales if self.scale is None else self.scale.decode(scales)
        return scale if tensor_scale is None else scale * tensor_scale

    @property
    def _nan_scale(self) -> float:
        return torch.nan if self.scale is None else 2**self.scale.bits - 1

    # Reading

    def dequantize(self, quantized: Quantized) -> Tensor:
        blocks = self._split(self.element.decode(quantized.codes))
        b, R, _, C, _ = blocks.shape
        scales = self.block_scales(quantized).reshape(b, R, 1, C, 1)
        return self._merge(blocks * scales, quantized.shape)

    def block_scales(self, quantized: Quantized) -> Tensor:
        """The number that each block is multiplied with, in fp32."""
        assert quantized.scales is not None
        return self.multiplier(quantized.scales, quantized.tensor_scale)

    @property
    def bits_per_value(self) -> float:
        if self.rows is None or self.columns is None:
            return float(self.element.bits)
        return self.element.bits + (8 if self.scale else 32) / (self.rows * self.columns)

    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        assert quantized.scales is not None
        stored = {"codes": pack_codes(quantized.codes, self.element.bits), "scales": quantized.scales}
        if quantized.tensor_scale is not None:
            stored["tensor_scale"] = quantized.tensor_scale
        return stored

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        codes = self.part(stored, "codes", self.code_shape(shape), torch.uint8)
        scale_dtype = torch.float32 if self.scale is None else torch.uint8
        scales = self.part(stored, "scales", self.scale_shape(shape), scale_dtype)
        return Quantized(unpack_codes(codes, self.element.bits), scales, self)
