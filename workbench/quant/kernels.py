"""Formats as arithmetic from numbers to numbers, written so that torch.compile makes one loop of each.

A kernel takes an fp32 tensor cut into blocks, (n, r, C, c): each r × c share a scale. It gives what
`Format.quantize` would decode to, bit for bit, and the magnitudes it took scales from, which are NaN or
infinite where the tensor is: for such numbers the values mean nothing, and the caller refuses them.

Why it is fast: scales are found on the reduced tensor, from bits; dividing by a power of two is a product;
elements are rounded by `grids.round_values`.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor

from workbench.quant.affine import AffineFormat
from workbench.quant.blocks import BlockFormat
from workbench.quant.cast import CastFormat
from workbench.quant.elements import ELEMENTS
from workbench.quant.fixed_point import FixedPointFormat
from workbench.quant.floats import FloatFormat
from workbench.quant.grids import round_values
from workbench.quant.hif4 import GROUP, HiF4Format
from workbench.quant.integers import IntegerFormat
from workbench.quant.kv_entry import KVEntryFormat
from workbench.quant.nvfp4 import TwoLevelFormat
from workbench.quant.quantized import Format
from workbench.quant.scales import power_of_two_codes

Kernel = Callable[..., tuple[Tensor, Tensor]]  # the format is of each kernel's own class
"""(blocks, format, amax of the whole tensor where `needs_tensor_amax`) -> (values, magnitudes)."""

_RUN = 1024  # numbers
_TWO_TO_MINUS_127 = 0x400000  # in fp32: a subnormal, so a shifted exponent does not give it


def needs_tensor_amax(fmt: Format) -> bool:
    """Whether every block depends on the whole tensor."""
    return isinstance(fmt, TwoLevelFormat | FixedPointFormat) or (
        isinstance(fmt, BlockFormat) and fmt.rows is None
    )


def has_kernel(fmt: Format, x: Tensor) -> bool:
    """Whether the format can be rounded to here, and the tensor, once filled up, cut into its blocks."""
    if (
        type(fmt) not in KERNELS
        or getattr(fmt, "ties", "even") == "stochastic"
        or not x.numel()
        or not x.ndim
    ):
        return False
    if isinstance(fmt, KVEntryFormat):
        return x.shape[-1] == fmt.plain_dims + fmt.rope_dims
    if isinstance(fmt, HiF4Format):
        return x.shape[-1] % GROUP == 0
    if isinstance(fmt, FixedPointFormat) and fmt.mode == "offset":
        return False
    element: Any = getattr(fmt, "element")  # noqa: B009 (the formats above are those without one)
    return bool(element.bits <= 16 if isinstance(element, IntegerFormat) else element.is_signed)


def cut(x: Tensor, fmt: Format) -> Tensor:
    """The blocks of a contiguous tensor that the format divides, as a view.

    Shapes: (..., o, i) -> (n, r, C, c).
    """
    if isinstance(fmt, BlockFormat) and fmt.rows is not None:
        columns = fmt.columns or x.shape[-1]
        if fmt.rows == 1:
            return x.view(-1, 1, 1, columns)
        return x.view(-1, fmt.rows, x.shape[-1] // columns, columns)
    if isinstance(fmt, AffineFormat | KVEntryFormat):
        return x.view(-1, 1, 1, x.shape[-1])
    if isinstance(fmt, HiF4Format):
        return x.view(-1, 1, 1, GROUP)
    # No scale to share. In runs, the largest magnitude is found while a run is still in a core's cache.
    return x.view(-1, 1, 1, _RUN if x.numel() % _RUN == 0 else 1)


def _cast(x: Tensor, fmt: CastFormat, _: None) -> tuple[Tensor, Tensor]:
    amax = _amax(x)
    # Makes values wait for the amax of their run: a compiler then makes one pass over memory of two.
    return torch.where(amax.isfinite(), round_values(x, fmt.element, fmt.ties, fmt.overflow), 0.0), amax


def _block(x: Tensor, fmt: BlockFormat, tensor_amax: Tensor | None) -> tuple[Tensor, Tensor]:
    amax = _amax(x) if tensor_amax is None else tensor_amax
    guarded = amax.clamp(min=fmt.least_amax)
    if fmt.rule != "amax":
        assert isinstance(fmt.element, FloatFormat)
        exponent = power_of_two_codes(guarded, fmt.element, fmt.rule).int()
        scale, inverse = _power(exponent), _power(254 - exponent)
        return round_values(x * inverse, fmt.element, fmt.ties) * scale, amax
    scale = _stored(guarded / fmt.element.largest, fmt)
    ratio = x * (fmt.element.largest / guarded) if fmt.order == "mul_inv" else x / scale
    return round_values(ratio, fmt.element, fmt.ties) * scale, amax


def _amax(x: Tensor) -> Tensor:
    # In two steps: one running maximum over the thousands of numbers of a block would wait for itself.
    return reduce(reduce(x.abs(), "n r C c -> n r C 1", "max"), "n r C 1 -> n 1 C 1", "max")


def _power(field: Tensor) -> Tensor:
    """2^(field - 127) in fp32, for 0 to 254."""
    return (field << 23).clamp(min=_TWO_TO_MINUS_127).view(torch.float32)


def _stored(scale: Tensor, fmt: BlockFormat) -> Tensor:
    scale = scale.clamp(min=fmt.least_scale)
    return scale if fmt.scale is None else round_values(scale, fmt.scale)


def _two_level(x: Tensor, fmt: TwoLevelFormat, tensor_amax: Tensor | None) -> tuple[Tensor, Tensor]:
    assert tensor_amax is not None
    amax = _amax(x)
    tensor_scale = (tensor_amax / (fmt.top_scale * fmt.element.largest)).clamp(min=2.0**-126)

    def attempt(target: float) -> Tensor:
        scale = _stored(amax / target / tensor_scale, fmt) * tensor_scale
        return round_values(x / scale, fmt.element, fmt.ties) * scale

    best = attempt(fmt.targets[0])
    for target in fmt.targets[1:]:
        new = attempt(target)
        best = torch.where(_loss(x, new) < _loss(x, best), new, best)
    return best, amax


def _loss(x: Tensor, values: Tensor) -> Tensor:
    return reduce((x.double() - values.double()).square(), "n r C c -> n 1 C 1", "sum")


def _hif4(x: Tensor, fmt: HiF4Format, _: None) -> tuple[Tensor, Tensor]:
    bf16, e6m2, lane = ELEMENTS["bf16"], ELEMENTS["e6m2"], ELEMENTS["e1m2"]
    x = rearrange(x, "n 1 1 (eight two lane) -> n eight two lane", two=2, lane=4)
    top_4 = reduce(x.abs(), "n eight two lane -> n eight two 1", "max")
    top_8 = reduce(top_4, "n eight two 1 -> n eight 1 1", "max")
    top = reduce(top_8, "n eight 1 1 -> n 1 1 1", "max")
    seventh = 0.142578125  # 1/7 in BF16
    scale = round_values(round_values(top * seventh, bf16).clamp(min=2.0**-48), e6m2)
    inverse = round_values(1 / scale, bf16)
    of_8 = torch.where(top_8 * inverse >= 4, 2.0, 1.0)
    of_4 = torch.where(top_4 * inverse * (1 / of_8) >= 2, 2.0, 1.0)
    rest = of_8 * of_4
    values = round_values(x * inverse * (1 / rest), lane, "away") * (scale * rest)
    return rearrange(values, "n eight two lane -> n 1 1 (eight two lane)"), top


def _kv_entry(x: Tensor, fmt: KVEntryFormat, _: None) -> tuple[Tensor, Tensor]:
    assert fmt.plain.columns is not None
    plain, rope = x[..., : fmt.plain_dims], x[..., fmt.plain_dims :]
    blocks = rearrange(plain, "n 1 1 (C c) -> n 1 C c", c=fmt.plain.columns)
    values, amax = _block(blocks, fmt.plain, None)
    values = rearrange(values, "n 1 C c -> n 1 1 (C c)")
    rounded = round_values(rope, fmt.rope, overflow="spec")
    magnitudes = reduce(rope.abs(), "n 1 1 c -> n 1 1 1", "max")
    return torch.cat((values, rounded), dim=-1), torch.cat((amax, magnitudes), dim=2)


def _affine(x: Tensor, fmt: AffineFormat, _: None) -> tuple[Tensor, Tensor]:
    low, high = (reduce(x, "n 1 1 c -> n 1 1 1", end) for end in ("min", "max"))
    largest = fmt.element.largest
    scale = (high - low) / (2 * largest + 1)
    flat = torch.where(high == 0, 1.0, high.abs() / largest)
    scale = torch.where(scale == 0, flat, scale)
    offset = largest - high / scale
    values = (round_values(x / scale + offset, fmt.element, fmt.ties) - offset) * scale
    return values, torch.maximum(-low, high)


def _fixed_point(x: Tensor, fmt: FixedPointFormat, tensor_amax: Tensor | None) -> tuple[Tensor, Tensor]:
    assert tensor_amax is not None
    position = torch.frexp(tensor_amax).exponent - (fmt.element.bits - 1)
    position = torch.where(tensor_amax == 0, 0, position)
    # Two factors, because the power alone may be past fp32.
    half, rest = _power(127 + position // 2), _power(127 + position - position // 2)
    scale = torch.ones_like(tensor_amax)
    if fmt.mode == "position and scale":
        scale = torch.where(tensor_amax == 0, 1.0, fmt.element.largest * half * rest / tensor_amax)
    codes = round_values(x * scale * (1 / half) * (1 / rest), fmt.element, fmt.ties)
    return codes * half * rest / scale, tensor_amax


KERNELS: dict[type[Format], Kernel] = {
    AffineFormat: _affine,
    BlockFormat: _block,
    CastFormat: _cast,
    FixedPointFormat: _fixed_point,
    HiF4Format: _hif4,
    KVEntryFormat: _kv_entry,
    TwoLevelFormat: _two_level,
}
"""By the format's own class: a subclass may round in another way."""
