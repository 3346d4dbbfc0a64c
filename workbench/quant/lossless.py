"""From one stored format to another without rounding: FP4 to FP8, and MXFP4 to NVFP4.

V4 trains and serves its FP4 experts through FP8 products: the scales of 1 × 32 blocks move into E4M3's wider
exponents, under one scale for 128 × 128. With the new scale 2^6 below the greatest of the old ones, an
element is multiplied with 2^k, k <= 6 (6 · 2^6 = 384 fits under 448), and stays exact down to k = -8
(0.5 · 2^-8 = 2^-9, E4M3's least number). So a block converts exactly if its greatest scale is at most 2^14
times its least; up to 2^11 its numbers also stay normal (0.5 · 2^-5 = 2^-6).

Report: section 3.4, which names the condition and not the threshold. Source: the release's converter
(2^6); DeepSeek TileKernels, which asserts 2^11.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

from workbench.quant.blocks import BlockFormat
from workbench.quant.formats import FORMATS, V4_WEIGHT
from workbench.quant.quantized import Quantized

HEADROOM = 6
EXACT_RATIO, NORMAL_RATIO = 14, 11
"""The exponents of the greatest ratio of scales that is lossless, and of that whose results are normal."""

_SIDE = 128


def scale_ratios(quantized: Quantized) -> Tensor:
    """log2 of the greatest over the least scale in each 128 × 128 block: the data of the ratio's histogram.

    Shapes: MXFP4 of (..., o, i) -> int32 (..., o / 128, i / 128), rounded up.
    Sub-blocks of zeros are left out, whose scale says nothing (V4 stores 2^-126). Where there is no other
    in a block, its ratio is -1.

    Raises:
        ValueError: this is no FP4 in blocks of 1 × 32 under E8M0.
    """
    fmt, scales = _mxfp4("scale_ratios", quantized)
    exponents = scales.int()
    is_zero = _is_zero(quantized, fmt)
    high = _over_blocks(exponents.masked_fill(is_zero, -1), "max", filler=-1)
    low = _over_blocks(exponents.masked_fill(is_zero, 255), "min", filler=255)
    return torch.where(high < 0, -1, high - low)


def fp4_to_fp8(quantized: Quantized, normals_only: bool = False) -> Quantized:
    """The same numbers as FP8 in blocks of 128 × 128 under powers of two, V4's format of other weights.

    Shapes: MXFP4 of (..., o, i) -> fp8_e4m3_128x128_ue8m0 of (..., o, i).
    A ratio past 2^14 is still exact where the small scales hold no odd multiple of FP4's step; only what
    would change a number is refused. normals_only: refuse ratios past 2^11, as DeepSeek's kernel does.

    Raises:
        ValueError: a number would change, or normals_only and a ratio is past 2^11; the message says how far
            the ratio goes. Or this is no FP4 in blocks of 1 × 32 under E8M0.
    """
    fmt, scales = _mxfp4("fp4_to_fp8", quantized)
    *_, rows, columns = scales.shape
    top = _over_blocks(scales.int(), "max", filler=0)
    new = (top - HEADROOM).clamp_(min=0)
    wide = repeat(new, "... R C -> ... (R r) (C c)", r=_SIDE, c=_SIDE // _columns(fmt))[..., :rows, :columns]
    # Far below E4M3's reach every shift rounds to zero; fp32 has to tell the number from zero before.
    shift = (scales.int() - wide).clamp_(min=-100)
    per_number = repeat(shift, "... o C -> ... o (C c)", c=fmt.columns)
    numbers = fmt.element.decode(quantized.codes) * torch.exp2(per_number.float())
    codes = V4_WEIGHT.element.encode(numbers)
    lost = int((V4_WEIGHT.element.decode(codes) != numbers).sum())
    ratio = int(scale_ratios(quantized).max()) if scales.numel() else 0
    if lost or (normals_only and ratio > NORMAL_RATIO):
        limit = NORMAL_RATIO if normals_only else EXACT_RATIO
        raise ValueError(
            f"fp4_to_fp8: got scales whose ratio reaches 2^{ratio} in a block of 128 × 128, and {lost} "
            f"numbers would change; it needs 2^{limit} or less; keep this tensor in FP4, or round it anew"
        )
    return Quantized(codes, new.to(torch.uint8), V4_WEIGHT)


def mxfp4_to_nvfp4(quantized: Quantized) -> Quantized:
    """The same numbers as NVFP4: the codes stay, each scale becomes two E4M3 powers of two.

    Shapes: MXFP4 of (..., i) -> nvfp4 of (..., i).
    The tensor scale is 2^-8 of the greatest scale: that one is stored as 2^8, and the least can be 2^-9.

    Raises:
        ValueError: the ratio of the greatest to the least scale of the tensor is past 2^17, E4M3's powers of
            two; or this is no FP4 in blocks of 1 × 32 under E8M0.
    Source: NVIDIA Model Optimizer's conversion of V4's experts.
    """
    fmt, scales = _mxfp4("mxfp4_to_nvfp4", quantized)
    target = FORMATS["nvfp4"]
    assert isinstance(target, BlockFormat) and target.scale is not None and target.columns is not None
    is_zero = _is_zero(quantized, fmt)
    exponents = scales.int() - 127
    greatest = exponents.masked_fill(is_zero, -127).max()
    relative = (exponents - greatest + 8).masked_fill(is_zero, -9)
    least = int(relative.min())
    if least < -9:
        raise ValueError(
            f"mxfp4_to_nvfp4: got scales whose ratio reaches 2^{8 - least}; E4M3 holds powers of two over "
            f"2^17; keep this tensor in MXFP4, or round it anew"
        )
    codes = target.scale.encode(torch.exp2(relative.float()))
    per_block = repeat(codes, "... C -> ... (C n)", n=_columns(fmt) // target.columns)
    return Quantized(quantized.codes, per_block, target, torch.exp2((greatest - 8).float()))


def _mxfp4(caller: str, quantized: Quantized) -> tuple[BlockFormat, Tensor]:
    fmt, scales = quantized.format, quantized.scales
    if not isinstance(fmt, BlockFormat) or fmt.scale is None or scales is None:
        found = None
    else:
        found = fmt.element.name, fmt.scale.name, fmt.rows, fmt.columns
    if found != ("e2m1", "e8m0", 1, 32):
        raise ValueError(
            f"{caller}: got {fmt.name}; it needs FP4 in blocks of 1 × 32 under E8M0; quantize to 'mxfp4_v4' "
            f"or its like"
        )
    assert isinstance(fmt, BlockFormat) and scales is not None
    return fmt, scales


def _columns(fmt: BlockFormat) -> int:
    assert fmt.columns is not None
    return fmt.columns


def _is_zero(quantized: Quantized, fmt: BlockFormat) -> Tensor:
    """Which sub-blocks hold only zeros, of either sign."""
    magnitudes = quantized.codes & 7
    return reduce(magnitudes, "... (C c) -> ... C", "max", c=_columns(fmt)) == 0


def _over_blocks(scales: Tensor, operation: str, filler: int) -> Tensor:
    """Reduce the scales of each 128 × 128 block of numbers; a last block may be cut short."""
    c = _SIDE // 32
    padded = F.pad(scales, (0, -scales.shape[-1] % c, 0, -scales.shape[-2] % _SIDE), value=filler)
    blocks = rearrange(padded, "... (R r) (C c) -> ... R C (r c)", r=_SIDE, c=c)
    return reduce(blocks, "... R C n -> ... R C", operation)
