"""What rounding a tensor to a format leaves: codes, scales, and the format that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.quant.element import as_float32
from workbench.quant.rounding import check_choice

Specials = Literal["raise", "propagate"]
"""NaN and infinity in the tensor: refuse them, or let a block that holds one become NaN by its scale. A
format without scales keeps what its elements can say."""


@dataclass(frozen=True)
class Format(ABC):
    """How a tensor is stored; `name` is its name in FORMATS.

    A subclass says how to round a tensor to it, how to read what is stored, and the bytes.
    """

    name: str

    @abstractmethod
    def quantize(
        self, x: Tensor, generator: torch.Generator | None = None, specials: Specials = "raise"
    ) -> Quantized: ...

    @abstractmethod
    def dequantize(self, quantized: Quantized) -> Tensor: ...

    @abstractmethod
    def block_scales(self, quantized: Quantized) -> Tensor | None:
        """The number that each block is multiplied with, in fp32; None without scales."""

    @abstractmethod
    def pack(self, quantized: Quantized) -> dict[str, Tensor]:
        """The tensors that a file or a cache holds, by role."""

    @abstractmethod
    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        """What `pack` gave, as codes again. `shape` is that of the numbers.

        Raises:
            ValueError: a tensor is absent, of another shape or of another type.
        """

    @property
    @abstractmethod
    def bits_per_value(self) -> float:
        """Element and share of the scales. A scale for a whole row, column or tensor counts nothing."""

    def part(
        self, stored: Mapping[str, Tensor], role: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """One stored tensor, once its shape and type are right."""
        tensor = stored.get(role)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            got = "none" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
            raise ValueError(
                f"unpack: {self.name} got {role} {got}; needs {dtype} {shape}; pass the bytes of this tensor "
                f"(`.view(torch.uint8)`) and its shape in numbers"
            )
        return tensor


@dataclass(frozen=True, eq=False)
class Quantized:
    """A tensor in a format.

    codes: uint8, or int32 past 8 bits, one for each number and in its place.
    scales: one for each block, as stored: codes of the scale's format, or fp32; HiF4: its 32-bit words.
    tensor_scale: fp32, the second level of NVFP4.
    offsets: fp32, what asymmetric integers subtract.
    """

    codes: Tensor
    scales: Tensor | None
    format: Format
    tensor_scale: Tensor | None = None
    offsets: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    def dequantize(self) -> Tensor:
        """The numbers that the codes stand for, exactly, in fp32."""
        return self.format.dequantize(self)

    def block_scales(self) -> Tensor | None:
        """The number that each block is multiplied with, in fp32; None without scales."""
        return self.format.block_scales(self)

    def packed(self) -> dict[str, Tensor]:
        """The tensors that a file or a cache holds, by role: "codes", "scales", ..., or one "record"."""
        return self.format.pack(self)

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.packed().values())


def finite_float32(x: Tensor, specials: Specials) -> tuple[Tensor, Tensor]:
    """x in fp32 and where it is NaN or infinite.

    Raises:
        ValueError: x is no float tensor of 32 or 16 bits, or holds NaN or infinity and `specials` is "raise".
    """
    check_choice("quantize", "specials", specials, Specials)
    x = as_float32("quantize", x)
    is_special = ~x.isfinite()
    if specials == "raise" and is_special.any():
        raise ValueError(
            f"quantize: got {int(x.isnan().sum())} NaN and {int(x.isinf().sum())} infinite of {x.numel()} "
            f"numbers; it needs finite ones; mend them, or pass specials='propagate' to make their blocks NaN"
        )
    return x, is_special
