"""Formats of sign, exponent field and mantissa field."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from workbench.quant.element import TableElement

Specials = Literal["ieee", "all ones", "minus zero", "none"]
"""Which codes are no numbers: the top exponent (infinity, then NaN), the code of ones behind the sign (NaN),
the code of minus zero (NaN), or none."""


@dataclass(frozen=True)
class FloatFormat(TableElement):
    """A code with fields e and m is (1 + m / 2^mantissa_bits) · 2^(e - bias).

    With `has_zero`, e = 0 means m / 2^mantissa_bits · 2^(1 - bias): zero and the subnormals.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Specials
    is_signed: bool = True
    has_zero: bool = True

    @property
    def bits(self) -> int:
        return self.is_signed + self.exponent_bits + self.mantissa_bits

    @cached_property
    def values(self) -> Tensor:
        code = torch.arange(2**self.bits)
        mantissa = code % 2**self.mantissa_bits
        exponent = (code >> self.mantissa_bits) % 2**self.exponent_bits
        is_subnormal = (exponent == 0) & self.has_zero
        significand = mantissa + torch.where(is_subnormal, 0, 2**self.mantissa_bits)
        power = torch.where(is_subnormal, 1, exponent) - self.bias - self.mantissa_bits
        value = torch.ldexp(significand.double(), power)
        half = 2 ** (self.exponent_bits + self.mantissa_bits)
        if self.specials == "ieee":
            is_top = exponent == 2**self.exponent_bits - 1
            value[is_top] = torch.where(mantissa[is_top] == 0, torch.inf, torch.nan).double()
        elif self.specials == "all ones":
            value[half - 1 :: half] = torch.nan
        if self.is_signed:
            value = torch.where(code >= half, -value, value)
        if self.specials == "minus zero":
            value[half] = torch.nan
        return value.float()

    @property
    def least_exponent(self) -> int:
        return (1 if self.has_zero else 0) - self.bias

    def mantissa_bits_at(self, exponent: Tensor) -> Tensor:
        return torch.full_like(exponent, self.mantissa_bits)

    def fields(self, code: int) -> tuple[tuple[str, str], ...]:
        """The bits of a code, cut into named fields from the top bit down."""
        bits = self.bit_string(code)
        cuts = (
            ("sign", int(self.is_signed)),
            ("exponent", self.exponent_bits),
            ("mantissa", self.mantissa_bits),
        )
        named, at = [], 0
        for name, width in cuts:
            if width:
                named.append((name, bits[at : at + width]))
            at += width
        return tuple(named)
