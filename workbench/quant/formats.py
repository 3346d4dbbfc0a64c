"""The table of formats, and `quantize`, which rounds a tensor to one of them.

Each row names what libraries leave to habit: the rule of the scale, ties, the order of operations, and what
guards a block of zeros. `dataclasses.replace(FORMATS["mxfp4"], name="mine", ties="away")` makes another.

Blocks run along the last axis, which products sum over: of weights (out, in) and of activations (..., in).
"""

import difflib
from typing import Any

import torch
from torch import Tensor

from workbench.quant.affine import AffineFormat
from workbench.quant.blocks import BlockFormat
from workbench.quant.cast import CastFormat
from workbench.quant.elements import ELEMENTS as E
from workbench.quant.fixed_point import FixedPointFormat
from workbench.quant.hif4 import HiF4Format
from workbench.quant.integers import INT4, INT8, INT16, INT31
from workbench.quant.kv_entry import KVEntryFormat
from workbench.quant.nvfp4 import TwoLevelFormat
from workbench.quant.quantized import Format, Quantized, Specials

_FP8, _FNUZ, _FP4, _E8M0, _UE4M3 = (E[name] for name in ("e4m3fn", "e4m3fnuz", "e2m1", "e8m0", "ue4m3"))

# What guards a block of zeros, or of nearly nothing.
_DEEPSEEK: dict[str, Any] = dict(least_amax=1e-4)
_V4_FP4: dict[str, Any] = dict(least_amax=6 * 2.0**-126)
_V41_KV: dict[str, Any] = dict(least_amax=6 * 2.0**-9)
_MX: dict[str, Any] = dict(least_scale=2.0**-127)  # code 0 of E8M0
_NVIDIA: dict[str, Any] = dict(least_scale=2.0**-9)  # the least E4M3; torchao has 2^-6
_INTEGER: dict[str, Any] = dict(least_scale=2.0**-126)  # ours: no vendor names one

# DeepSeek's weights end where their matrix ends; other blocks have to divide.
_WEIGHT: dict[str, Any] = dict(**_DEEPSEEK, cuts_blocks=True)

# name, element, rows, columns, scale, rule, ties, order, guard
V4_WEIGHT = BlockFormat("fp8_e4m3_128x128_ue8m0", _FP8, 128, 128, _E8M0, "rceil", "even", "div", **_WEIGHT)
V4_EXPERT = BlockFormat("mxfp4_v4", _FP4, 1, 32, _E8M0, "rceil", "even", "div", **_V4_FP4)
_KV_FP8 = BlockFormat("fp8_e4m3_1x64_ue8m0", _FP8, 1, 64, _E8M0, "rceil", "even", "div", **_DEEPSEEK)

_ROWS: tuple[Format, ...] = (
    # One scale a tensor: the baseline that V3's blocks replace.
    BlockFormat("fp8_e4m3_tensor", _FP8, None, None, None, "amax", "even", "div", **_DEEPSEEK),
    # V3: activations by 1 × 128, weights by 128 × 128, fp32 scales; the inputs of the products after
    # attention, kept for the backward pass, in 12 bits. Then V3's blocks in the FP8 of AMD's MI300X.
    BlockFormat("fp8_e4m3_1x128", _FP8, 1, 128, None, "amax", "even", "div", **_DEEPSEEK),
    BlockFormat("fp8_e4m3_128x128", _FP8, 128, 128, None, "amax", "even", "div", **_WEIGHT),
    BlockFormat("e5m6_token", E["e5m6"], 1, None, None, "amax", "even", "mul_inv", **_DEEPSEEK),
    BlockFormat("fp8_e4m3fnuz_1x128", _FNUZ, 1, 128, None, "amax", "even", "div", **_DEEPSEEK),
    BlockFormat("fp8_e4m3fnuz_128x128", _FNUZ, 128, 128, None, "amax", "even", "div", **_WEIGHT),
    # V3.1 and V4: powers of two, in the activations of both and in the weights that are not experts.
    BlockFormat("fp8_e4m3_1x128_ue8m0", _FP8, 1, 128, _E8M0, "rceil", "even", "div", **_DEEPSEEK),
    V4_WEIGHT,
    V4_EXPERT,
    _KV_FP8,
    KVEntryFormat("kv_v4", _KV_FP8, E["bf16"], 448, 64),
    # V4.1: smaller blocks, and compressed entries in FP4.
    BlockFormat("fp8_e4m3_1x32_ue8m0", _FP8, 1, 32, _E8M0, "rceil", "even", "div", **_DEEPSEEK),
    BlockFormat("fp8_e4m3_32x32_ue8m0", _FP8, 32, 32, _E8M0, "rceil", "even", "div", **_WEIGHT),
    BlockFormat("kv_v41", _FP4, 1, 16, _UE4M3, "amax", "even", "div", **_V41_KV),
    # OCP MX 1.0
    BlockFormat("mxfp8_e4m3", _FP8, 1, 32, _E8M0, "floor", "even", "div", **_MX),
    BlockFormat("mxfp8_e5m2", E["e5m2"], 1, 32, _E8M0, "floor", "even", "div", **_MX),
    BlockFormat("mxfp6_e2m3", E["e2m3"], 1, 32, _E8M0, "floor", "even", "div", **_MX),
    BlockFormat("mxfp6_e3m2", E["e3m2"], 1, 32, _E8M0, "floor", "even", "div", **_MX),
    BlockFormat("mxfp4", _FP4, 1, 32, _E8M0, "floor", "even", "div", **_MX),
    # What else is called MXFP4: by AMD Quark, torchao (CEIL), ModelOpt, microxcaling; and Ascend 950's E1M2.
    BlockFormat("mxfp4_even", _FP4, 1, 32, _E8M0, "even", "even", "div", **_MX),
    BlockFormat("mxfp4_ceil", _FP4, 1, 32, _E8M0, "ceil", "even", "div", **_MX),
    BlockFormat("mxfp4_modelopt", _FP4, 1, 32, _E8M0, "rceil", "zero", "div", **_MX),
    BlockFormat("mxfp4_microxcaling", _FP4, 1, 32, _E8M0, "floor", "away", "div", **_MX),
    BlockFormat("mxfp4_e1m2", E["e1m2"], 1, 32, _E8M0, "floor", "even", "div", **_MX),
    # NVFP4: two levels, one, and the better of mapping amax to 6 or to 4.
    TwoLevelFormat("nvfp4", _FP4, 1, 16, _UE4M3, "amax", "even", "div", **_NVIDIA),
    BlockFormat("nvfp4_single", _FP4, 1, 16, _UE4M3, "amax", "even", "div", **_NVIDIA),
    TwoLevelFormat(
        "nvfp4_46", _FP4, 1, 16, _UE4M3, "amax", "even", "div", **_NVIDIA, top_scale=256, targets=(6, 4)
    ),
    # Huawei: HiF4 and, as AscendC casts to it, HiF8.
    HiF4Format("hif4"),
    CastFormat("hif8", E["hif8"], "away", "saturate"),
    # Ascend 910: W8A8 by channel and by token, W4A8, W4A4.
    BlockFormat("int8_tensor", INT8, None, None, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int8_channel", INT8, 1, None, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int8_token", INT8, 1, None, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int8_group128", INT8, 1, 128, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int4_channel", INT4, 1, None, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int4_token", INT4, 1, None, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int4_group32", INT4, 1, 32, None, "amax", "even", "div", **_INTEGER),
    BlockFormat("int4_group128", INT4, 1, 128, None, "amax", "even", "div", **_INTEGER),
    AffineFormat("int8_token_asymmetric", INT8, "even"),
    AffineFormat("int4_token_asymmetric", INT4, "even"),
    # Cambricon MLU
    FixedPointFormat("mlu_int8_pos", INT8, "position", "away"),
    FixedPointFormat("mlu_int8_pos_scale", INT8, "position and scale", "away"),
    FixedPointFormat("mlu_int8_offset", INT8, "offset", "away"),
    FixedPointFormat("mlu_int16_pos", INT16, "position", "away"),
    FixedPointFormat("mlu_int16_pos_scale", INT16, "position and scale", "away"),
    FixedPointFormat("mlu_int31_pos", INT31, "position", "away"),
    # No scale. Those of 16 bits and TF32 overflow to infinity, as their casts do.
    *(CastFormat(name, E[name], "even", "saturate") for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")),
    *(CastFormat(name, E[name], "even", "saturate") for name in ("e2m3", "e3m2", "e2m1", "e1m2")),
    *(CastFormat(name, E[name], "even", "spec") for name in ("fp16", "bf16", "tf32")),
)
FORMATS: dict[str, Format] = {row.name: row for row in _ROWS}


def format_of(name: str | Format) -> Format:
    """The format of this name; a format is its own.

    Raises:
        ValueError: there is none; the message names the closest.
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise ValueError(
            f"quantize: got format {name!r}; it needs a name such as 'mxfp4_v4' or a Format; choose one of "
            f"{sorted(FORMATS)}"
        )
    if name not in FORMATS:
        close = [known for known in FORMATS if known.startswith(name)] or difflib.get_close_matches(
            name, FORMATS, n=3, cutoff=0.4
        )
        meant = f"did you mean {', '.join(close[:3])}? " if close else ""
        raise ValueError(f"quantize: format {name!r} is unknown; {meant}choose one of {sorted(FORMATS)}")
    return FORMATS[name]


def quantize(
    x: Tensor, fmt: str | Format, generator: torch.Generator | None = None, specials: Specials = "raise"
) -> Quantized:
    """Round a tensor to a format: codes and scales, as they are stored.

    Shapes: float (..., i) -> Quantized of the same shape.
    `generator` is for formats whose ties are "stochastic". specials="propagate" makes a block with NaN or
    infinity NaN by its scale, as OCP MX does; without a scale each number keeps what its element has.

    Raises:
        ValueError: the format is unknown, x is no fp32, bf16 or fp16, a size is no multiple of the block's,
            or x holds NaN or infinity and specials is "raise".
    """
    return format_of(fmt).quantize(x, generator, specials)
