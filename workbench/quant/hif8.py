"""HiF8, Huawei's 8-bit float with tapered precision: three mantissa bits near 1, none at the far ends.

Behind the sign stands a prefix code, the dot, that says how many exponent bits D follow; what is left of
the byte is mantissa. The exponent is a sign and a magnitude whose leading one is not stored.

    dot    D   mantissa   exponents
    0000   -   0          denormal: 2^(c - 23), c = 1 ... 7
    0001   0   3          0
    001    1   3          ±1
    01     2   3          ±2, ±3
    10     3   2          ±4 ... ±7
    11     4   1          ±8 ... ±15

Zero has one code, 0x00; 0x80 is NaN; 0x6F and 0xEF are the infinities. Rounding on Ascend: nearest, ties
away from zero (CAST_ROUND). Its other mode, CAST_HYBRID, rounds numbers of |exponent| 4 and more by their
own low bits: up where the bits that fall away are at least as large as those. Read to the letter, that
moves 16, which HiF8 has (0 >= 0), and sends every BF16 number up. Only a chip or its simulator can settle
what is meant, so the mode is not offered; "stochastic" rounds by a generator.

Source: HiFloat8 paper (arXiv 2409.16626); AscendC Cast.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.quant.element import TableElement

# Prefix, exponent bits, mantissa bits.
_DOTS = (("0001", 0, 3), ("001", 1, 3), ("01", 2, 3), ("10", 3, 2), ("11", 4, 1))


@dataclass(frozen=True)
class HiF8(TableElement):
    """Huawei's HiFloat8."""

    @property
    def bits(self) -> int:
        return 8

    def fields(self, code: int) -> tuple[tuple[str, str], ...]:
        """The bits of a code: sign, dot, exponent, mantissa; a denormal's three last bits are exponent."""
        bits = self.bit_string(code)
        body = bits[1:]
        for dot, d, _ in _DOTS:
            if body.startswith(dot):
                at = len(dot)
                parts = (
                    ("sign", bits[0]),
                    ("dot", dot),
                    ("exponent", body[at : at + d]),
                    ("mantissa", body[at + d :]),
                )
                return tuple((name, part) for name, part in parts if part)
        return ("sign", bits[0]), ("dot", body[:4]), ("exponent", body[4:])

    @cached_property
    def values(self) -> Tensor:
        value = torch.tensor([self._value(code) for code in range(128)])
        value = torch.cat((value, -value))
        value[0x80] = torch.nan
        return value

    def _value(self, code: int) -> float:
        parts = dict(self.fields(code))
        if parts["dot"] == "0000":
            return 2.0 ** (code - 23) if code else 0.0
        if code == 0x6F:
            return torch.inf
        tail = parts.get("exponent", "")
        magnitude = int("1" + tail[1:], 2) if tail else 0
        exponent = -magnitude if tail[:1] == "1" else magnitude
        mantissa = parts["mantissa"]
        return (1 + int(mantissa, 2) / 2 ** len(mantissa)) * 2.0**exponent

    @property
    def least_exponent(self) -> int:
        return -22

    def mantissa_bits_at(self, exponent: Tensor) -> Tensor:
        size = exponent.abs()
        return (size <= 15).int() + (size <= 7).int() + (size <= 3).int()
