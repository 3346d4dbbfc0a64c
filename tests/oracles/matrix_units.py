"""Dot products of matrix units, one number at a time with exact fractions, from the published algorithms.

Source: arXiv 2511.10909 (algorithms for NVIDIA's T-FDPA and for CDNA3's TR-FDPA and GTR-FDPA); V3 report,
section 3.3.2. Shares no code with workbench.quant: FP64 appears only where a definition says FP64.
"""

import math
from fractions import Fraction

LOWEST = -126


def exponent(x: Fraction | float, least: int = LOWEST) -> int:
    """⌊log2 |x|⌋, at least `least`; a zero has none and gets a very small one."""
    x = abs(Fraction(x))
    if x == 0:
        return -10_000
    e = x.numerator.bit_length() - x.denominator.bit_length()
    e += 1 if Fraction(2) ** (e + 1) <= x else 0
    e -= 1 if Fraction(2) ** e > x else 0
    return max(e, least)


def cut(x: Fraction, places: int, toward: str) -> Fraction:
    """x to a multiple of 2^-places, toward zero or down."""
    scaled = x * Fraction(2) ** places
    whole = math.floor(scaled) if toward == "down" else math.trunc(scaled)
    return Fraction(whole) / Fraction(2) ** places


def round_to(x: Fraction, bits: int, rule: str) -> Fraction:
    """x to `bits` places behind its leading one: toward zero, down, or to the nearest, ties to even."""
    if x == 0:
        return x
    scale = Fraction(2) ** (bits - exponent(x, -10_000))
    scaled = x * scale
    if rule == "even":
        return Fraction(round(scaled)) / scale  # Python rounds fractions to even
    return Fraction(math.floor(scaled) if rule == "down" else math.trunc(scaled)) / scale


def aligned_dot(a, b, least, group, fraction_bits, kept_bits, rounding, begin=0):
    """NVIDIA: all terms cut to `fraction_bits` below the largest exponent, added, cut again.

    `least`: the smallest exponent of a number of either format.
    """
    total = Fraction(begin)
    for i in range(0, len(a), group):
        terms, exponents = [total], [max(exponent(total), LOWEST)]
        for x, y in zip(a[i : i + group], b[i : i + group], strict=True):
            terms.append(Fraction(x) * Fraction(y))
            exponents.append(exponent(x, least[0]) + exponent(y, least[1]))
        places = fraction_bits - max(exponents)
        total = round_to(sum(cut(term, places, "zero") for term in terms), kept_bits, rounding)
    return total


def sequential_dot(a, b, group, kept_bits):
    """Products added one by one to an FP64 sum, rounded after each group."""
    total = 0.0
    for i in range(0, len(a), group):
        for x, y in zip(a[i : i + group], b[i : i + group], strict=True):
            total = total + x * y
        total = float(round_to(Fraction(total), kept_bits, "even"))
    return Fraction(total)


def cdna3_dot(a, b, least, group, is_interleaved):
    """MI300: products, even and odd apart for FP8, cut to 24 places; all else rounded down, to 24 and 31."""
    total = Fraction(0)
    for i in range(0, len(a), group):
        ways = []
        for way in range(2 if is_interleaved else 1):
            step = 2 if is_interleaved else 1
            pairs = list(zip(a[i : i + group], b[i : i + group], strict=True))[way::step]
            top = max([exponent(x, least[0]) + exponent(y, least[1]) for x, y in pairs] + [LOWEST])
            ways.append((sum(cut(Fraction(x) * Fraction(y), 24 - top, "zero") for x, y in pairs), top))
        dot_top = max(top for _, top in ways)
        dot = sum(cut(part, 24 - dot_top, "down") for part, _ in ways)
        own = max(exponent(total), LOWEST)
        top = max(dot_top, own)
        kept = cut(total, 24 - top, "down")
        if is_interleaved and own < top - 25:
            kept = Fraction(0)
        result = round_to(cut(dot, 32 - top, "down") + kept, 31, "down")
        total = round_to(result, 23, "even")
    return total
