"""Number formats by the definition, one number at a time, in exact fractions.

A grid is the list of a format's non-negative finite values, written here from the published tables. Block
formats are loops over blocks and numbers. Where a format computes in fp32, numpy's scalars do; where it
is exact, fractions are.
"""

import math
from bisect import bisect_right
from fractions import Fraction

import numpy as np

f32 = np.float32


def binades(mantissa_bits, first, last, dropped=0):
    """(1 + m / 2^mantissa_bits) · 2^e for e = first ... last, without the last `dropped`."""
    steps = 2**mantissa_bits
    values = [
        Fraction(steps + m, steps) * Fraction(2) ** e for e in range(first, last + 1) for m in range(steps)
    ]
    return values[: len(values) - dropped]


def subnormals(mantissa_bits, first):
    return [Fraction(m, 2**mantissa_bits) * Fraction(2) ** first for m in range(2**mantissa_bits)]


def floats(mantissa_bits, first, last, dropped=0):
    return subnormals(mantissa_bits, first) + binades(mantissa_bits, first, last, dropped)


GRIDS = {
    "e2m1": [Fraction(v) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)],
    "e1m2": [Fraction(v) for v in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75)],
    "e2m3": floats(3, 0, 2),
    "e3m2": floats(2, -2, 4),
    "e4m3fn": floats(3, -6, 8, dropped=1),
    "e5m2": floats(2, -14, 15),
    "e4m3fnuz": floats(3, -7, 7),
    "e5m2fnuz": floats(2, -15, 15),
    "e5m6": floats(6, -14, 15),
    "fp16": floats(10, -14, 15),
    "bf16": floats(7, -126, 127),
    "tf32": floats(10, -126, 127),
    "ue4m3": floats(3, -6, 8, dropped=1),
    "e8m0": binades(0, -127, 127),
    "e6m2": binades(2, -48, 15, dropped=1),
    "hif8": [
        Fraction(0),
        *binades(0, -22, -16), *binades(1, -15, -8), *binades(2, -7, -4),
        *binades(3, -3, 3), *binades(2, 4, 7), *binades(1, 8, 15, dropped=1),
    ],
}  # fmt: skip
LARGEST = {name: grid[-1] for name, grid in GRIDS.items()}


def nearest(x, grid, ties="even"):
    """The value of the grid next to x >= 0; past its end, the end. Even is an even place in the list, which
    for floats is an even mantissa."""
    x = Fraction(float(x))
    if x >= grid[-1]:
        return grid[-1]
    above = bisect_right(grid, x)
    if above == 0:
        return grid[0]
    low, high = grid[above - 1], grid[above]
    if x - low != high - x:
        return low if x - low < high - x else high
    return {"even": high if above % 2 == 0 else low, "away": high, "zero": low}[ties]


def signed(x, grid, ties="even"):
    value = float(nearest(abs(float(x)), grid, ties))
    return math.copysign(value, float(x))


def power_of_two(amax, element, rule, mantissa_bits, least_amax=0.0):
    """The exponent of an MX scale, from -127 to 127, with integer arithmetic on fractions."""
    a = max(Fraction(float(amax)), Fraction(float(f32(least_amax))))
    if a == 0:
        return -127
    largest = LARGEST[element]
    emax = floor_log2(largest)
    exponent = {
        "floor": lambda: floor_log2(a) - emax,
        "ceil": lambda: ceil_log2(a) - emax,
        "rceil": lambda: ceil_log2(a / largest),
        "even": lambda: floor_log2(half_up(a, mantissa_bits)) - emax,
    }[rule]()
    return min(max(exponent, -127), 127)


def floor_log2(a):
    exponent = a.numerator.bit_length() - a.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= a else exponent - 1


def ceil_log2(a):
    exponent = floor_log2(a)
    return exponent if Fraction(2) ** exponent == a else exponent + 1


def half_up(a, mantissa_bits):
    step = Fraction(2) ** (floor_log2(a) - mantissa_bits)
    return math.floor(a / step + Fraction(1, 2)) * step


def mx_block(block, element, rule, mantissa_bits, ties="even", least_amax=0.0):
    """Values and scale code of one block under a power of two."""
    exponent = power_of_two(max(abs(v) for v in block), element, rule, mantissa_bits, least_amax)
    scale = Fraction(2) ** exponent
    grid = GRIDS[element]
    values = []
    for v in block:
        value = nearest(Fraction(abs(float(v))) / scale, grid, ties) * scale
        values.append(math.copysign(float(value), v))
    return values, exponent + 127


def scaled_block(block, element, least_amax=0.0, least_scale=0.0, order="div"):
    """Values and fp32 scale of one block: s = amax / max, x / s or x · (max / amax), each step in fp32."""
    amax = max(f32(max(abs(v) for v in block)), f32(least_amax))
    largest = f32(float(LARGEST[element]) if element in LARGEST else {"int8": 127, "int4": 7}[element])
    scale = max(amax / largest, f32(least_scale))
    values = []
    for v in block:
        ratio = f32(v) / scale if order == "div" else f32(v) * (largest / amax)
        code = integer(ratio, int(largest)) if element.startswith("int") else signed(ratio, GRIDS[element])
        values.append(f32(code) * scale)
    return values, scale


def integer(x, largest, ties="even"):
    """Nearest integer from -largest - 1 to largest."""
    low = math.floor(x)
    part = Fraction(float(x)) - low
    if part == Fraction(1, 2):
        whole = {"even": low + low % 2, "away": low + (x > 0)}[ties]
    else:
        whole = low + (part > Fraction(1, 2))
    return min(max(whole, -largest - 1), largest)


def nvfp4_tensor(blocks, levels=2, top=448, targets=(6,)):
    """Values of blocks of 16, block scales, tensor scale, each step in fp32.

    With one level the tensor scale is 1. With two targets the one with less squared error wins.
    """
    amax = f32(max(abs(v) for block in blocks for v in block))
    g = f32(1)
    if levels == 2:
        g = max(amax / f32(top * 6), f32(2.0**-126))
    out, scales = [], []
    for block in blocks:
        tries = []
        for target in targets:
            raw = f32(max(abs(v) for v in block)) / f32(target) / g
            stored = max(float(nearest(raw, GRIDS["ue4m3"])), 2.0**-9)
            s = f32(stored) * g
            values = [f32(signed(f32(v) / s, GRIDS["e2m1"])) * s for v in block]
            error = sum((float(v) - float(w)) ** 2 for v, w in zip(block, values, strict=True))
            tries.append((error, len(tries), values, stored))
        best = min(tries)
        out += best[2]
        scales.append(best[3])
    return out, scales, g


def bf16(x):
    return f32(signed(x, GRIDS["bf16"]))


def hif4_group(group):
    """Values and scale word of 64 numbers, in the six steps of the conversion."""
    top_4 = [max(abs(v) for v in group[4 * k : 4 * k + 4]) for k in range(16)]
    top_8 = [max(top_4[2 * k : 2 * k + 2]) for k in range(8)]
    factor = bf16(f32(max(top_8)) * bf16(f32(1) / f32(7)))
    factor = min(max(float(factor), 2.0**-48), 49152.0)
    scale = nearest(factor, GRIDS["e6m2"])
    code = GRIDS["e6m2"].index(scale)
    inverse = bf16(f32(1) / f32(float(scale)))
    of_8 = [int(f32(v) * inverse >= 4) for v in top_8]
    of_4 = [int(f32(v) * inverse * f32(0.5 if of_8[k // 2] else 1) >= 2) for k, v in enumerate(top_4)]
    word = (
        code
        + sum(bit << 8 + k for k, bit in enumerate(of_8))
        + sum(bit << 16 + k for k, bit in enumerate(of_4))
    )
    values = []
    for place, v in enumerate(group):
        shift = of_8[place // 8] + of_4[place // 4]
        lane = nearest(f32(abs(v)) * inverse / f32(2**shift), GRIDS["e1m2"], "away")
        values.append(math.copysign(float(scale * 2**shift * lane), v))
    return values, word
