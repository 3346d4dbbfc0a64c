"""Rounding to an element format as plain fp32 arithmetic: the values that codes stand for, without the codes.

A compiler turns these lines into vector instructions; a look-up in a table of codes it does not.
`Element.round` takes the other way, through codes; the tests hold the two together bit for bit.

What looks roundabout is there for speed. Magnitudes are cut off and signs put back as integers, because as
floats both have to mind NaN. And nothing is cast to a 16-bit type and back: compiled for a CPU, torch leaves
such a pair of casts out.
"""

import math

import torch
from torch import Tensor

from workbench.quant.element import Element, Overflow, TableElement
from workbench.quant.floats import FloatFormat
from workbench.quant.integers import IntegerFormat
from workbench.quant.rounding import Ties, round_steps

# fp32
_MAGNITUDE, _EXPONENT_FIELD = 0x7FFFFFFF, 0x7F800000
_BIAS, _FRACTION_BITS, _LEAST_EXPONENT = 127, 23, -126
_LARGEST = torch.finfo(torch.float32).max


def round_values(x: Tensor, element: Element, ties: Ties = "even", overflow: Overflow = "saturate") -> Tensor:
    """The values nearest to finite x.

    Shapes: fp32 (...) -> fp32 (...).
    Equal to `element.round(x, ties, overflow)` bit for bit, for the ties that need no chance, the elements
    that have a zero and integers up to 16 bits. An element without a sign takes magnitudes.
    """
    if isinstance(element, IntegerFormat):
        whole = x.round() if ties == "even" else round_steps(x.abs(), ties).copysign(x)
        top = 2 ** (element.bits - 1)
        # By way of integers, which have no minus zero.
        return whole.clamp(-top, top - 1).int().float()
    assert isinstance(element, TableElement)
    # No step is wider than the largest number: what rounds past it does so from twice that as well.
    reach = element.largest if overflow == "saturate" else min(2 * element.largest, _LARGEST)
    bits = x.view(torch.int32)
    magnitude = (bits & _MAGNITUDE).clamp(max=_bits_of(reach))
    rounded = _round_magnitudes(magnitude, element, ties)
    if overflow == "spec":
        rounded = torch.where(rounded > element.largest, _past_largest(element), rounded)
    if not element.is_signed:
        return rounded
    signed = (rounded.view(torch.int32) | (bits & ~_MAGNITUDE)).view(torch.float32)
    if isinstance(element, FloatFormat) and element.specials != "minus zero":
        return signed
    return torch.where(rounded == 0, 0.0, signed)  # FNUZ and HiF8 have one zero


def _round_magnitudes(bits: Tensor, element: TableElement, ties: Ties) -> Tensor:
    """Numbers from their fp32 bits, rounded."""
    magnitude, least = bits.view(torch.float32), element.least_exponent
    exponents = (bits & _EXPONENT_FIELD).clamp(min=least + _BIAS << _FRACTION_BITS)
    if not isinstance(element, FloatFormat):
        mantissa_bits = element.mantissa_bits_at((exponents >> _FRACTION_BITS) - _BIAS)
        return _count_steps(magnitude, exponents - (mantissa_bits << _FRACTION_BITS), ties)
    m = element.mantissa_bits
    if least - m < _LEAST_EXPONENT:
        return _drop_bits(bits, _FRACTION_BITS - m, ties)
    if ties == "even":
        # fp32's own addition: next to this number, one unit in the last place is a step of the element.
        high = (exponents + (_FRACTION_BITS - m << _FRACTION_BITS)).view(torch.float32)
        return (magnitude + high) - high
    return _count_steps(magnitude, exponents - (m << _FRACTION_BITS), ties)


def _count_steps(magnitude: Tensor, step_bits: Tensor, ties: Ties) -> Tensor:
    """For any rule. `step_bits`: fp32 bits of the step, a power of two, at each number."""
    per_step = ((2 * _BIAS << _FRACTION_BITS) - step_bits).view(torch.float32)
    return round_steps(magnitude * per_step, ties) * step_bits.view(torch.float32)


def _drop_bits(bits: Tensor, dropped: int, ties: Ties) -> Tensor:
    """For formats with fp32's exponents, whose subnormals are fp32's: round the last bits away."""
    half = 1 << dropped - 1
    if ties == "even":
        bits = bits + (half - 1) + ((bits >> dropped) & 1)
    else:
        bits = bits + (half if ties == "away" else half - 1)
    return (bits & -1 << dropped).view(torch.float32)


def _past_largest(element: TableElement) -> float:
    """What overflow means where it is not cut off: infinity, else NaN, else the largest number."""
    if isinstance(element, FloatFormat):
        return {"ieee": math.inf, "none": element.largest}.get(element.specials, math.nan)
    return math.inf


def _bits_of(number: float) -> int:
    """Those of a positive fp32 number that has few: m · 2^e, put together again as fields."""
    mantissa, exponent = math.frexp(number)
    return (exponent - 1 + _BIAS << _FRACTION_BITS) + int((2 * mantissa - 1) * 2**_FRACTION_BITS)
