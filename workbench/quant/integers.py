"""Two's-complement integers, whose steps are all one wide."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.quant.element import Element, Overflow, as_float32
from workbench.quant.rounding import Ties, round_steps


@dataclass(frozen=True)
class IntegerFormat(Element):
    """An integer of `width` bits, -2^(width - 1) to 2^(width - 1) - 1."""

    width: int

    @property
    def bits(self) -> int:
        return self.width

    @property
    def largest(self) -> float:
        return float(2 ** (self.bits - 1) - 1)

    @cached_property
    def values(self) -> Tensor:
        """What every code means, in fp32, in the order of the codes. Shapes: -> (2 ** bits,)."""
        return self.decode(torch.arange(2**self.bits).to(self.code_dtype))

    def decode(self, codes: Tensor) -> Tensor:
        """The integer of each code. Shapes: uint8 or int32 (...) -> fp32 (...)."""
        top = 2 ** (self.bits - 1)
        return ((codes.int() ^ top) - top).float()

    def encode(
        self,
        x: Tensor,
        ties: Ties = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The code of the nearest integer; past the ends, the end, under either policy.

        Shapes: float (...) -> uint8 or int32 (...).

        Raises:
            ValueError: x is no fp32, bf16 or fp16, or holds NaN.
        """
        x = as_float32("encode", x)
        if x.isnan().any():
            raise ValueError(
                f"encode: got {int(x.isnan().sum())} NaN; {self.name} has no code for NaN; replace them first"
            )
        whole = round_steps(x.abs(), ties, generator).copysign(x)
        top = 2 ** (self.bits - 1)
        # The largest is cut off as an integer: 2^30 - 1, that of 31 bits, is no fp32 number.
        number = whole.clamp_(-top, top).int().clamp_(max=top - 1)
        return (number & 2**self.bits - 1).to(self.code_dtype)

    def fields(self, code: int) -> tuple[tuple[str, str], ...]:
        """The sign bit, worth -2^(bits - 1), and the rest."""
        bits = self.bit_string(code)
        return ("sign", bits[0]), ("integer", bits[1:])


INT4, INT8, INT16, INT31 = (IntegerFormat(f"int{width}", width) for width in (4, 8, 16, 31))
