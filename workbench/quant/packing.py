"""Codes as bytes: 4-bit codes two to a byte, 6-bit codes four to three bytes, the first in the low bits.

The row is a little-endian stream of bits. V4's files, torchao, ModelOpt and compressed-tensors pack FP4 this
way, Ascend its int4 (eight to an int32). MX fixes no layout for 6 bits in memory; DeepSeek's kernel for
E5M6 has another, eight codes in three uint32 with the first on top, which is not written here.
"""

import math

import torch
from einops import rearrange
from torch import Tensor


def _group(bits: int) -> tuple[int, int]:
    """(codes, bytes) of the shortest group that fills whole bytes."""
    n_codes = 8 // math.gcd(bits, 8)
    return n_codes, n_codes * bits // 8


def _checked_width(caller: str, width: int, group: int, bits: int, what: str) -> int:
    if width % group:
        raise ValueError(
            f"{caller}: got rows of {width} {what}; {bits}-bit codes need a multiple of {group}; pad the "
            f"rows, or pass the format that wrote them"
        )
    return width // group


def packed_width(width: int, bits: int) -> int:
    """Bytes of a row of codes.

    Raises:
        ValueError: the row does not fill whole bytes.
    """
    n_codes, n_bytes = _group(bits)
    return _checked_width("pack", width, n_codes, bits, "codes") * n_bytes


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Put codes of `bits` bits, up to 16, side by side.

    Shapes: uint8 or int32 (..., i) -> uint8 (..., i · bits / 8).

    Raises:
        ValueError: a row does not fill whole bytes.
    """
    if bits == 8:
        return codes
    n_codes, n_bytes = _group(bits)
    packed_width(codes.shape[-1], bits)
    parts = rearrange(codes.int(), "... (i n) -> ... i n", n=n_codes)
    word = (parts << bits * torch.arange(n_codes, device=codes.device)).sum(-1, dtype=torch.int32)
    cut = torch.stack([word >> 8 * at for at in range(n_bytes)], dim=-1) & 0xFF
    return rearrange(cut.to(torch.uint8), "... i n -> ... (i n)")


def unpack_codes(stored: Tensor, bits: int) -> Tensor:
    """Take packed codes apart.

    Shapes: uint8 (..., i · bits / 8) -> uint8, or int32 past 8 bits (..., i).

    Raises:
        ValueError: these are no bytes, or a row is no whole number of codes.
    """
    if stored.dtype != torch.uint8:
        raise ValueError(f"unpack: got {stored.dtype}; needs the bytes; pass tensor.view(torch.uint8)")
    if bits == 8:
        return stored
    n_codes, n_bytes = _group(bits)
    _checked_width("unpack", stored.shape[-1], n_bytes, bits, "bytes")
    parts = rearrange(stored, "... (i n) -> ... i n", n=n_bytes)
    word = parts[..., 0]  # uint8 is enough where a group is one byte
    if n_bytes > 1:
        word = (parts.int() << 8 * torch.arange(n_bytes, device=stored.device)).sum(-1, dtype=torch.int32)
    codes = torch.stack([word >> bits * at for at in range(n_codes)], dim=-1) & 2**bits - 1
    return rearrange(codes.to(torch.uint8 if bits <= 8 else torch.int32), "... i n -> ... (i n)")
