"""What a matrix unit is fed: numbers, the exponents it sees, and the scales that multiply elsewhere.

Axes: m rows, k reduction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.quant.blocks import BlockFormat
from workbench.quant.cast import CastFormat
from workbench.quant.element import TableElement
from workbench.quant.elements import ELEMENTS
from workbench.quant.fixed_point import FixedPointFormat
from workbench.quant.formats import format_of
from workbench.quant.hif4 import GROUP, HiF4Format
from workbench.quant.nvfp4 import TwoLevelFormat
from workbench.quant.quantized import Format

PLAIN = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_NORMAL = -126  # exponent of the least normal FP32 number
ZERO_EXPONENT = -(1 << 12)  # below every sum of two exponents that are not of zeros


@dataclass(frozen=True)
class Operand:
    """One factor of a product. A number is its value times the scale of its block.

    Shapes: values fp32 (m, k); exponents int16 (m, k), ⌊log2⌋ of a value, not below the least exponent of
    its format (a unit adds exponent fields and does not normalise subnormals); scales fp32 (m, blocks) or
    None; a block is `block` numbers of k.
    """

    values: Tensor
    exponents: Tensor
    scales: Tensor | None = None
    block: int = 0

    def cut(self, part: slice) -> Operand:
        """The same numbers without their scales, at some places of k."""
        return Operand(self.values[:, part], self.exponents[:, part])

    def scale_of(self, part: slice) -> Tensor | None:
        """The one scale (m,) that each row has in a part of k.

        Raises:
            ValueError: a row has several there.
        """
        if self.scales is None:
            return None
        first, last = part.start // self.block, (part.stop - 1) // self.block
        if first != last:
            raise ValueError(
                f"matmul: got numbers {part.start} to {part.stop - 1} of k as one sum, and scales for each "
                f"{self.block}; a sum outside the unit has one scale; promote every {self.block} or a divisor"
            )
        return self.scales[:, first]

    def numbers(self) -> Tensor:
        """What the operand stands for, fp32 (m, k)."""
        return self.values if self.scales is None else self.values * self._spread(self.scales)

    def with_scales_inside(self) -> Operand:
        """Values times their scales: the exponents shift, the rest stays.

        Raises:
            ValueError: a scale is no power of two.
        """
        if self.scales is None:
            return self
        fraction, exponent = torch.frexp(self.scales)
        if not (fraction == 0.5).all():
            raise ValueError(
                f"matmul: got scales such as {float(self.scales[fraction != 0.5][0]):g} inside the unit; "
                f"there they shift exponents and are powers of two; scale chunks, or choose such a format"
            )
        exponents = self.exponents + self._spread(exponent - 1)
        return Operand(self.numbers(), exponents.masked_fill(self.values == 0, ZERO_EXPONENT).short())

    def _spread(self, scales: Tensor) -> Tensor:
        return scales.repeat_interleave(self.block, dim=1)[:, : self.values.shape[1]]


@torch.no_grad()
def operand(x: Tensor, fmt: str | Format, enters_as: str | None = None) -> Operand:
    """Round a matrix to a format and take it apart.

    A last block may be cut short, whatever the format says of stored tensors. NVFP4's block scales are
    multiplied into the values, which is exact; the scale of its tensor stays apart. HiF4's scales, and the
    scales and offsets of asymmetric integers, are worked into the values.

    `enters_as`: the element whose exponents the unit sees, if values are cast once more, exactly: FP4 as
    FP8.

    Shapes: x (m, k).

    Raises:
        ValueError: the format is unknown, or x is not finite.
    """
    if isinstance(fmt, str) and fmt in PLAIN:
        values = x.to(PLAIN[fmt]).float()
        if not values.isfinite().all():
            raise ValueError(
                f"matmul: got {int((~values.isfinite()).sum())} numbers that are not finite in {fmt}; a unit "
                f"aligns numbers by their exponents; mend them first"
            )
        return Operand(values, _exponents(values, -14 if fmt == "fp16" else LEAST_NORMAL))
    how = format_of(fmt)
    m, k = x.shape
    if isinstance(how, BlockFormat):
        how = replace(how, cuts_blocks=True)
    short = -k % GROUP if isinstance(how, HiF4Format) else 0
    quantized = how.quantize(F.pad(x, (0, short)))
    if not isinstance(how, (BlockFormat, CastFormat, FixedPointFormat)):
        values = quantized.dequantize()[:, :k]
        return Operand(values, _exponents(values, LEAST_NORMAL))
    if isinstance(how, TwoLevelFormat):
        values, scales = replace(quantized, tensor_scale=None).dequantize(), quantized.tensor_scale
        least = LEAST_NORMAL
    else:
        values, scales = how.element.decode(quantized.codes), quantized.block_scales()
        seen = ELEMENTS[enters_as] if enters_as else how.element
        least = seen.least_exponent if isinstance(seen, TableElement) else LEAST_NORMAL
    if quantized.offsets is not None:
        values = values - quantized.offsets  # MLU's, whole numbers too
    block = k
    if scales is not None and scales.ndim == 2:
        assert isinstance(how, BlockFormat)
        scales, block = scales.repeat_interleave(how.rows or 1, dim=0)[:m], how.columns or k
    elif scales is not None:
        scales = scales.expand(m, 1)
    return Operand(values, _exponents(values, least), scales, block)


def _exponents(values: Tensor, least: int) -> Tensor:
    exponents = (torch.frexp(values).exponent - 1).clamp(min=least)
    return exponents.masked_fill(values == 0, ZERO_EXPONENT).short()
