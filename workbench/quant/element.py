"""One number of a few bits: the table of what its codes mean, and the way from a number to a code.

Every format with at most 19 bits is a table, `values`. What encoding needs follows from the table and the
width of the steps in each binade, so that one vectorised path rounds to all of them: formats with and
without sign, zero, subnormals, infinities, and HiF8, whose steps widen away from 1.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from workbench.quant.rounding import Ties, check_choice, round_steps

Overflow = Literal["saturate", "spec"]
"""Past the largest: the largest, for infinities too; or what the format has for it, infinity or else NaN."""

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def check_floats(caller: str, x: Tensor) -> None:
    """Refuse what is no fp32, bf16 or fp16: fp64 would be rounded twice, integers are codes by mistake."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{caller}: got a {type(x).__name__}; needs a tensor; pass torch.as_tensor(x)")
    if x.dtype not in _FLOATS:
        raise ValueError(
            f"{caller}: got {str(x.dtype).removeprefix('torch.')}; needs float32, bfloat16 or float16; cast "
            f"it first, so that the rounding of the cast is yours"
        )


def as_float32(caller: str, x: Tensor) -> Tensor:
    """x in fp32, which every number to be rounded has exactly. Raises: as `check_floats`."""
    check_floats(caller, x)
    return x.float()


@dataclass(frozen=True)
class Element(ABC):
    """One number of `bits` bits. Codes are uint8 up to 8 bits and int32 above."""

    name: str

    @property
    @abstractmethod
    def bits(self) -> int: ...

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest finite value."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The value of each code, exactly.

        Shapes: uint8 or int32 (...) -> fp32 (...).
        """

    @abstractmethod
    def encode(
        self,
        x: Tensor,
        ties: Ties = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The code of the nearest value, or by chance one of the two next to x.

        Shapes: float (...) -> codes (...).
        """

    @abstractmethod
    def fields(self, code: int) -> tuple[tuple[str, str], ...]:
        """The bits of a code, cut into named fields from the top bit down."""

    def round(
        self,
        x: Tensor,
        ties: Ties = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The values that `encode` chooses. Shapes: float (...) -> fp32 (...)."""
        return self.decode(self.encode(x, ties, overflow, generator))

    @property
    def code_dtype(self) -> torch.dtype:
        return torch.uint8 if self.bits <= 8 else torch.int32

    def bit_string(self, code: int) -> str:
        if not 0 <= code < 2**self.bits:
            raise ValueError(
                f"fields: {self.name} got code {code}; it has {self.bits} bits; choose one of 0 to "
                f"{2**self.bits - 1}"
            )
        return format(code, f"0{self.bits}b")


class Grid(NamedTuple):
    """How to find a code: by the exponent field of x in fp32 (256), then by rank among the magnitudes."""

    step: Tensor  # (256,) distance of neighbours
    first: Tensor  # (256,) rank of a magnitude minus its number of steps
    codes: Tensor  # (sign 2, ranks + 1): the last column is what lies past the largest


class Range(NamedTuple):
    """From `start`, a power of two, to the next range: so many bits behind the leading one."""

    start: float
    mantissa_bits: int


class TableElement(Element):
    """A format that is known when `values` and the steps of each binade are."""

    @property
    @abstractmethod
    def values(self) -> Tensor:
        """What every code means, in fp32, in the order of the codes. Shapes: -> (2 ** bits,)."""

    @property
    @abstractmethod
    def least_exponent(self) -> int:
        """The exponent below which steps stay as wide as they are."""

    @abstractmethod
    def mantissa_bits_at(self, exponent: Tensor) -> Tensor:
        """How many bits follow the leading one in each binade."""

    @cached_property
    def largest(self) -> float:
        return float(self.values[self.values.isfinite()].max())

    @cached_property
    def ranges(self) -> list[Range]:
        """Where the mantissa changes its length; below the first start, steps stay as wide as they are."""
        exponents = torch.arange(self.least_exponent, math.frexp(self.largest)[1])
        widths = self.mantissa_bits_at(exponents).tolist()
        return [
            Range(2.0**exponent, width)
            for exponent, width, before in zip(exponents.tolist(), widths, [None, *widths], strict=False)
            if width != before
        ]

    @cached_property
    def nan_code(self) -> int | None:
        """The code that NaN gets: the last one without a sign, as torch has it."""
        codes = self.values.isnan().nonzero().flatten()
        positive = codes[codes < 2 ** (self.bits - 1)]
        return int((positive if len(positive) else codes)[-1]) if len(codes) else None

    @cached_property
    def is_signed(self) -> bool:
        return bool((self.values < 0).any())

    @cached_property
    def _grid(self) -> Grid:
        values = self.values.double()
        is_minus = self.values.signbit() & ~values.isnan()
        signs = []
        for is_chosen in (~is_minus, is_minus if self.is_signed else ~is_minus):
            codes = (is_chosen & values.isfinite()).nonzero().flatten()
            codes = codes[values[codes].abs().argsort()]
            infinite = (is_chosen & values.isinf()).nonzero().flatten()
            past = infinite if len(infinite) else torch.tensor([self.nan_code or codes[-1]])
            signs.append(torch.cat((codes, past)))
        positive, minus = signs
        if len(minus) < len(positive):  # no minus zero
            minus = torch.cat((positive[:1], minus))
        magnitudes = values[positive[:-1]]
        exponent = (torch.arange(256) - 127).clamp(min=self.least_exponent)
        start = torch.ldexp(torch.ones(256, dtype=torch.double), exponent)
        step = torch.ldexp(start, -self.mantissa_bits_at(exponent))
        first = torch.searchsorted(magnitudes, start) - start / step
        return Grid(step.float(), first.int(), torch.stack((positive, minus)).to(self.code_dtype))

    def decode(self, codes: Tensor) -> Tensor:
        """The value of each code, exactly.

        Shapes: uint8 or int32 (...) -> fp32 (...).

        Raises:
            ValueError: the codes are of another type, or one is past the table.
        """
        values = self.values.to(codes.device)
        is_short = len(values) <= torch.iinfo(self.code_dtype).max
        if codes.dtype != self.code_dtype or (is_short and codes.numel() and codes.max() >= len(values)):
            raise ValueError(
                f"decode: {self.name} got {str(codes.dtype).removeprefix('torch.')} codes up to "
                f"{int(codes.max()) if codes.numel() else 0}; needs {self.code_dtype} below {len(values)}; "
                f"unpack them first, or choose the format that wrote them"
            )
        return values.index_select(0, codes.flatten().int()).view(codes.shape)

    def encode(
        self,
        x: Tensor,
        ties: Ties = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The code of the nearest value, or by chance one of the two next to x.

        Shapes: float (...) -> uint8 or int32 (...).
        A tie goes to the even mantissa, or as `ties` says. Without a zero, what is less than the least value
        becomes the least. -0 is kept where the format has one.

        Raises:
            ValueError: x is no fp32, bf16 or fp16; or holds NaN, or negative numbers, for which the format
                has no code.
        """
        x = as_float32("encode", x)
        check_choice("encode", "overflow", overflow, Overflow)
        is_nan = x.isnan()
        if self.nan_code is None and is_nan.any():
            raise ValueError(
                f"encode: got {int(is_nan.sum())} NaN; {self.name} has no code for NaN; replace them first"
            )
        if not self.is_signed and (x < 0).any():
            raise ValueError(
                f"encode: got numbers down to {float(x.nan_to_num(nan=0).min()):g}; {self.name} has no sign; "
                f"pass magnitudes"
            )
        grid = Grid(*(table.to(x.device) for table in self._grid))
        # The greatest fp32 stands for infinity: it is past the largest of every format, or becomes so.
        magnitude = x.abs().nan_to_num_(nan=0.0)
        binade = magnitude.view(torch.int32) >> 23
        steps = round_steps(magnitude / grid.step[binade], ties, generator)
        last = grid.codes.shape[1] - 1
        highest = last - 1 if overflow == "saturate" else last
        rank = (grid.first[binade] + steps.int()).clamp_(0, highest)
        place = rank + x.signbit() * (last + 1)
        # index_select copies even for one number; indexing would hand out a view of the table.
        code = grid.codes.flatten().index_select(0, place.flatten()).view(x.shape)
        return code if self.nan_code is None else code.masked_fill_(is_nan, self.nan_code)
