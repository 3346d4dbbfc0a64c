"""Matrix units: how a chip adds a group of products to a running sum, bit by bit.

A unit takes `group` products at a time and the sum so far. Published probes of real chips find that most
neither add one after the other nor round once: they shift all terms to the largest exponent of the group,
cut off what falls below a fixed number of places, add what is left as integers, and cut the result again.

    e = max over the terms of their exponents          (of a product: the sum of its factors' exponents)
    S = Σ_i trunc(t_i · 2^(F - e)) · 2^(e - F)          t: the products and the running sum

Everything is computed elementwise in FP64, where every product of two FP32 numbers is exact: no library
decides an order, so no thread count and no other row can move a bit. Sums below 2^-126 keep places that a
chip drops, and a sum that passes FP32's largest becomes infinite only where it is read.

Axes: m rows of a, n rows of b, k reduction, g products of a group.
Source: arXiv 2511.10909 (bit-accurate models of ten GPUs); V3 report, section 3.3.2.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from workbench.quant.arithmetic.operands import Operand

TILE_PRODUCTS = 1 << 18  # products held at a time: 2 MB of FP64, which a cache holds
TILE_COLUMNS = 512
LOWEST = -126  # exponent of the least normal FP32 number: a unit aligns to nothing lower
BIAS, FRACTION_BITS = 1023, 52  # of FP64
Rounding = Literal["even", "zero"]


class Memory:
    """Buffers that one sum after the other writes to: fresh memory costs more than the arithmetic."""

    _DTYPES = (torch.float64, torch.int16, torch.int64)

    def __init__(self) -> None:
        self._buffers: tuple[Tensor, ...] = ()

    def take(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
        """Three tensors of a shape, fp64, int16 and int64, with anything in them."""
        size = math.prod(shape)
        if not self._buffers or len(self._buffers[0]) < size:
            self._buffers = tuple(torch.empty(size, dtype=dtype, device=device) for dtype in self._DTYPES)
        return tuple(buffer[:size].view(shape) for buffer in self._buffers)


class Unit(Protocol):
    """Something that sums products over k, starting from zero."""

    @property
    def group(self) -> int:
        """Products of one step."""

    def sum(self, a: Operand, b: Operand, memory: Memory | None = None) -> Tensor:
        """Σ_k a[:, k] · b[:, k] as the unit has it. Shapes: (m, k), (n, k) -> fp32 or int32 (m, n)."""


class Group(NamedTuple):
    """Factors of a group of products for a tile of sums, and memory to multiply them in.

    Shapes: x fp64 (g, m, 1), y fp64 (g, 1, n), their exponents int16 alike; products fp64, exponents int16
    and whole int64 (g, m, n), to be written.
    """

    x: Tensor
    y: Tensor
    x_exponent: Tensor
    y_exponent: Tensor
    products: Tensor
    exponents: Tensor
    whole: Tensor

    def multiply(self) -> None:
        """Fill in products and exponents."""
        torch.mul(self.x, self.y, out=self.products)
        torch.add(self.x_exponent, self.y_exponent, out=self.exponents)

    def aligned_sum(self, top: Tensor, bits: int, way: slice = slice(None)) -> Tensor:
        """Σ trunc(product · 2^(bits - top)) in FP64, of all products or of every other one.

        Products are used up. Shapes: top int64 (m, n) -> (m, n).
        """
        terms, whole = self.products[way].mul_(_power(bits - top)), self.whole[way]
        if bits + 2 + math.log2(len(terms)) < 31:  # a term is below 2^(bits + 2)
            whole = whole.view(torch.int32)[..., : terms.shape[-1]]
        # The cast to integers cuts toward zero, several times faster than trunc.
        return whole.copy_(terms).sum(dim=0, dtype=whole.dtype).double()


@dataclass(frozen=True)
class FloatUnit:
    """A unit that keeps a floating-point sum.

    `fraction_bits` F: the places kept below the largest exponent of a group; None: all, so that a group is
    summed in FP64, in the order of k. `kept_bits`: the fraction of the stored sum (23 FP32, 7 BF16, 13 what
    Hopper keeps of an FP8 sum). `rounding`: how the sum is brought to them.
    """

    group: int
    fraction_bits: int | None = None
    kept_bits: int = 23
    rounding: Rounding = "even"

    def sum(self, a: Operand, b: Operand, memory: Memory | None = None) -> Tensor:
        holds = 0 if self.fraction_bits is None else self.group
        return _walk(a, b, self.group, holds, self._add, memory or Memory())

    def _add(self, total: Tensor, group: Group) -> Tensor:
        if self.fraction_bits is None:
            total = total.clone()
            for x, y in zip(group.x, group.y, strict=True):
                total.addcmul_(x, y)
        else:
            group.multiply()
            top = torch.maximum(group.exponents.amax(dim=0), _exponent(total))
            products = group.aligned_sum(top, self.fraction_bits)
            scale = _power(self.fraction_bits - top)
            total = (products + (total * scale).long()) / scale
        return round_fraction(total, self.kept_bits, self.rounding)


@dataclass(frozen=True)
class CDNA3Unit:
    """The matrix core of AMD's MI300: products first, and what is cut is rounded down, not toward zero.

    The products of a group are aligned among themselves (those at even and at odd places apart, if
    `is_interleaved`, as for FP8), cut to 24 places and added; then this sum meets the running one. That is
    cut to 24 places below the larger of the two, the result to 31, both toward minus infinity, and rounded
    to FP32. So sums lean to the negative side.

    Source: arXiv 2511.10909, algorithms for CDNA3 (validated there on an MI300X).
    """

    group: int
    is_interleaved: bool = False
    fraction_bits: int = 24
    kept_bits: int = 31

    def sum(self, a: Operand, b: Operand, memory: Memory | None = None) -> Tensor:
        return _walk(a, b, self.group, self.group, self._add, memory or Memory())

    def _add(self, total: Tensor, group: Group) -> Tensor:
        bits = self.fraction_bits
        group.multiply()
        # A last group may be a single product, which has no odd places.
        ways = [slice(0, None, 2), slice(1, None, 2)] if self.is_interleaved else [slice(None)]
        ways = [way for way in ways if len(group.x[way])]
        tops = [group.exponents[way].amax(dim=0).long().clamp(min=LOWEST) for way in ways]
        dot_top = torch.stack(tops).amax(dim=0)
        dot = torch.zeros_like(total)  # in units of 2^(dot_top - bits)
        for way, top in zip(ways, tops, strict=True):
            dot += (group.aligned_sum(top, bits, way) * _power(top - dot_top)).floor_()
        own = _exponent(total)
        top = torch.maximum(dot_top, own)
        finest = self.kept_bits + 1
        dot = (dot * _power(dot_top - top + finest - bits)).floor_() * 2.0**-finest
        kept = (total * _power(bits - top)).floor_() * 2.0**-bits
        if self.is_interleaved:
            kept = kept.masked_fill(own < top - bits - 1, 0)
        result = (dot + kept) * _power(top)
        scale = _power(self.kept_bits - _exponent(result))
        return round_fraction((result * scale).floor_() / scale, 23, "even")


@dataclass(frozen=True)
class IntegerUnit:
    """A unit that multiplies integers and adds them in INT32: exact, in any order.

    Raises:
        ValueError: operands that are not whole, or so many terms that INT32 could overflow.
    """

    group: int = 32

    def sum(self, a: Operand, b: Operand, memory: Memory | None = None) -> Tensor:
        x, y = a.values.double(), b.values.double()
        if not x.numel() or not y.numel():
            return torch.zeros(len(x), len(y), dtype=torch.int32, device=x.device)
        largest = float(x.abs().amax() * y.abs().amax()) * x.shape[1]
        if largest >= 2**31 or not ((x == x.round()).all() and (y == y.round()).all()):
            raise ValueError(
                f"IntegerUnit: got {x.shape[1]} products that may add up to {largest:.4g}; it needs whole "
                f"numbers whose sum stays below 2^31; choose integer formats, or fewer products"
            )
        return (x @ y.mT).int()


def round_fraction(x: Tensor, bits: int, rounding: Rounding) -> Tensor:
    """Bring FP64 numbers to `bits` places behind the leading one; finite numbers only."""
    if bits == 23 and rounding == "even":
        return x.float().double()
    drop = FRACTION_BITS - bits
    code = x.view(torch.int64)
    if rounding == "even":
        # A carry out of the fraction runs into the exponent, as it should.
        code = code + (1 << drop - 1) - 1 + (code >> drop & 1)
    return (code & -1 << drop).view(torch.float64)


def _power(exponent: Tensor) -> Tensor:
    """2^exponent in FP64."""
    return (exponent + BIAS << FRACTION_BITS).view(torch.float64)


def _exponent(x: Tensor) -> Tensor:
    """⌊log2 |x|⌋ of FP64 numbers, int64; that of 0 and of what is below FP32's normal numbers is -126."""
    return ((x.view(torch.int64) >> FRACTION_BITS & 0x7FF) - BIAS).clamp_(min=LOWEST)


def _walk(
    a: Operand, b: Operand, group: int, holds: int, add: Callable[[Tensor, Group], Tensor], memory: Memory
) -> Tensor:
    """Let `add` take every group of products into its sum, tile by tile of (m, n).

    `holds`: how many products of a sum it writes down at a time; the group, or none.
    """
    # The reduction axis first, so that a group is one piece of memory.
    x, y = (operand.values.mT.double().contiguous() for operand in (a, b))
    x_exponent, y_exponent = (operand.exponents.mT.contiguous() for operand in (a, b))
    k, m, n = *x.shape, y.shape[1]
    total = torch.zeros(m, n, device=x.device)
    width = max(min(n, TILE_COLUMNS), 1)
    height = max(TILE_PRODUCTS // (max(holds, 1) * width), 1)
    for row, column in itertools.product(range(0, m, height), range(0, n, width)):
        rows, columns = slice(row, row + height), slice(column, column + width)
        tile = torch.zeros_like(total[rows, columns], dtype=torch.float64)
        for begin in range(0, k, group):
            part = slice(begin, begin + group)
            factors = x[part, rows].unsqueeze(2), y[part, columns].unsqueeze(1)
            exponents = x_exponent[part, rows].unsqueeze(2), y_exponent[part, columns].unsqueeze(1)
            shape = (min(holds, len(factors[0])), *tile.shape)
            tile = add(tile, Group(*factors, *exponents, *memory.take(shape, x.device)))
        total[rows, columns] = tile.float()
    return total
