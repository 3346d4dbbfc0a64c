"""Rounding to an element format as plain fp32 arithmetic: the values that codes stand for, without the codes.

A compiler turns these lines into vector instructions; a look-up in a table of codes, or a float read as an
integer for its exponent, it does not. `Element.round` takes the other way, through codes; the tests hold the
two together bit for bit.

fp32's own rounding does the work, and it goes to the nearest, ties to even. For a magnitude x and any g whose
last place is as wide as the element's step at x,

    rounded x = fl(g - fl(g - x)).

Where steps widen with the number, g = x · (2^s + 1) is such a g, if the element has s bits less than the 24
of fp32 (Veltkamp's splitting); below the least exponent steps stay as wide as they are, and g as it is.

Nothing is cast to a 16-bit type and back: compiled for a CPU, torch leaves such a pair of casts out.

Source: Dekker, "A floating-point technique for extending the available precision" (1971). That ties go to
the even is our own argument: at a tie g - x is halfway, too, between an even number of steps and its
neighbour. The tests try every tie of every format.
"""

import math

import torch
from torch import Tensor

from workbench.quant.element import Element, Overflow, TableElement
from workbench.quant.floats import FloatFormat
from workbench.quant.integers import IntegerFormat
from workbench.quant.rounding import Ties, round_steps

_FRACTION_BITS = 23  # of fp32
_FAR = 64  # binades: so much smaller, fp32's largest numbers can be multiplied with 2^s


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
    size = x.abs() if element.is_signed else x
    rounded = (_round_far if element.largest >= 2.0**_FAR else _round_near)(size, element, ties, overflow)
    if not element.is_signed:
        return rounded
    signed = rounded.copysign(x)
    if isinstance(element, FloatFormat) and element.specials != "minus zero":
        return signed
    return torch.where(rounded == 0, 0.0, signed)  # FNUZ and HiF8 have one zero


def _round_near(size: Tensor, element: TableElement, ties: Ties, overflow: Overflow) -> Tensor:
    """Magnitudes, into a format with fewer exponents than fp32."""
    largest = element.largest
    if overflow == "saturate":
        return _round(size.clamp(max=largest), element, ties)
    # No step is wider than the largest number: what rounds past it does so from twice that as well.
    rounded = _round(size.clamp(max=2 * largest), element, ties)
    return torch.where(rounded > largest, _past_largest(element), rounded)


def _round_far(size: Tensor, element: TableElement, ties: Ties, overflow: Overflow) -> Tensor:
    """Magnitudes, into a format with fp32's exponents, which overflows where fp32 does."""
    is_large = size >= 1
    rounded = _round(torch.where(is_large, size * 2.0**-_FAR, size), element, ties)
    rounded = torch.where(is_large, rounded * 2.0**_FAR, rounded)
    return rounded if overflow == "spec" else rounded.clamp(max=element.largest)


def _round(size: Tensor, element: TableElement, ties: Ties) -> Tensor:
    factor = _factor(size, element)
    nearest = _round_to_even(size, factor, element)
    if ties == "even":
        return nearest
    # A tie has one bit more than the element keeps, and lies as far from one neighbour as from the other.
    is_tie = _round_to_even(size, 0.5 * factor + 0.5, element, more_bits=1) == size
    miss = (size - nearest).abs()
    return torch.where(is_tie, size + miss if ties == "away" else size - miss, nearest)


def _factor(size: Tensor, element: TableElement) -> Tensor | float:
    """2^s + 1 at each number: s bits of 24 are more than the element has."""
    first, *others = (
        (start, 2.0 ** (_FRACTION_BITS - mantissa_bits) + 1) for start, mantissa_bits in element.ranges
    )
    factor: Tensor | float = first[1]
    for start, other in others:
        factor = torch.where(size < start, factor, size.new_full((), other))
    return factor


def _round_to_even(size: Tensor, factor: Tensor | float, element: TableElement, more_bits: int = 0) -> Tensor:
    """Magnitudes on the grid of an element, or of one with a bit more of mantissa."""
    start, mantissa_bits = element.ranges[0]
    fixed = 1.5 * start * 2.0 ** (_FRACTION_BITS - mantissa_bits - more_bits)
    g = (size * factor).clamp(min=fixed)
    return g - (g - size)


def _past_largest(element: TableElement) -> float:
    """What overflow means where it is not cut off: infinity, else NaN, else the largest number."""
    if isinstance(element, FloatFormat):
        return {"ieee": math.inf, "none": element.largest}.get(element.specials, math.nan)
    return math.inf
