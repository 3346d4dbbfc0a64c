"""Fake quantisation with other packages, each in the calls its own documentation shows."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Fake = Callable[[Tensor], Tensor]

NOT_INSTALLABLE = {"microxcaling": "published as source only: no package index has it"}
"""Named beside the others, and why they were not timed."""


class Peer(NamedTuple):
    """One package's way to one of our formats."""

    package: str
    format: str
    make: Callable[..., Fake]
    arguments: tuple[Any, ...]
    share: float  # of the tensor that is timed, for what would take minutes; the time counts for all of it
    differs: str  # why its numbers are not ours, where they are not

    def prepare(self) -> Fake:
        """The call. Imports the package."""
        return self.make(*self.arguments)


def _peer(
    package: str, fmt: str, make: Callable[..., Fake], *arguments: Any, share: float = 1, differs: str = ""
) -> Peer:
    return Peer(package, fmt, make, arguments, share, differs)


def _torchao_mx(element: Any, mode: str) -> Fake:
    from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode

    scaling = getattr(ScaleCalculationMode, mode.upper())
    return lambda x: MXTensor.to_mx(x, element, 32, scaling_mode=scaling).dequantize(torch.float32)


def _torchao_nvfp4(has_tensor_scale: bool) -> Fake:
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    def fake(x: Tensor) -> Tensor:
        scale = per_tensor_amax_to_scale(x.abs().max()) if has_tensor_scale else None
        return NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale).dequantize(torch.float32)

    return fake


def _torchao_int(bits: int, block: tuple[int, int]) -> Fake:
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    high = 2 ** (bits - 1) - 1
    low = -high  # its scale is the amax over half the way from low to high

    def fake(x: Tensor) -> Tensor:
        size = tuple(whole if part == 0 else part for part, whole in zip(block, x.shape, strict=True))
        scale, zero = choose_qparams_affine(
            x, MappingType.SYMMETRIC, size, torch.int8, low, high, scale_dtype=torch.float32
        )
        codes = quantize_affine(x, size, scale, zero, torch.int8, low, high)
        return dequantize_affine(codes, size, scale, zero, torch.int8, low, high)

    return fake


def _torchao_fp8(block: tuple[int, int]) -> Fake:
    from torchao.quantization.quant_primitives import (
        _choose_scale_float8,
        _dequantize_affine_float8,
        _quantize_affine_float8,
    )

    def fake(x: Tensor) -> Tensor:
        size = [whole if part == 0 else part for part, whole in zip(block, x.shape, strict=True)]
        scale = _choose_scale_float8(x, size)
        return _dequantize_affine_float8(_quantize_affine_float8(x, scale), scale)

    return fake


def _modelopt(name: str, block: int | None = None, blocks: dict[int, int] | None = None) -> Fake:
    import modelopt.torch.quantization.qtensor as qtensor

    kind = getattr(qtensor, name)
    options = {} if blocks is None else {"block_sizes": blocks}
    sizes = blocks or ({-1: block} if block else None)

    def fake(x: Tensor) -> Tensor:
        values, *scales = kind.quantize(x, *([block] if block else []), **options)
        named = dict(zip(("scale", "double_scale"), scales, strict=False))
        return values.dequantize(dtype=torch.float32, block_sizes=sizes, **named)

    return fake


def _quark_mx(element: str, mode: str) -> Fake:
    import quark.torch.kernel  # noqa: F401 (it registers torch.ops.quark)

    return lambda x: torch.ops.quark.non_scaled_fake_quantize(x, "mx", element, -1, 32, mode)


def _quark_fp8(group: int) -> Fake:
    import quark.torch.kernel  # noqa: F401

    scheme = "per_group" if group else "per_tensor"

    def fake(x: Tensor) -> Tensor:
        amax = x.unflatten(-1, (-1, group)).abs().amax(-1) if group else x.abs().amax()
        return torch.ops.quark.scaled_fake_quantize(
            "fp8_e4m3", x, amax / 448, torch.zeros(1), 1, group or 1, -448.0, 448.0, 8, scheme, "None"
        )

    return fake


def _compressed_tensors(
    bits: int, strategy: str, kind: str = "float", group: int | None = None, scale: torch.dtype | None = None
) -> Fake:
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    block = [128, 128] if strategy == "block" else None
    how = QuantizationArgs(
        num_bits=bits, type=kind, strategy=strategy, group_size=group, block_structure=block, symmetric=True,
        dynamic=False, scale_dtype=scale, zp_dtype=torch.uint8 if scale == torch.uint8 else None,
    )  # fmt: skip

    def fake(x: Tensor) -> Tensor:
        if strategy == "tensor":
            least, greatest = torch.aminmax(x)
        elif strategy == "channel":
            least, greatest = torch.aminmax(x, dim=-1, keepdim=True)
        elif strategy == "block":
            blocks = x.unflatten(1, (-1, 128)).unflatten(0, (-1, 128))
            least, greatest = blocks.amin((1, 3)), blocks.amax((1, 3))
        else:
            least, greatest = torch.aminmax(x.unflatten(-1, (-1, group)), dim=-1)
        whole = generate_gparam(x.amin(), x.amax()) if strategy == "tensor_group" else None
        scales, zeros = calculate_qparams(least, greatest, how, global_scale=whole)
        return fake_quantize(x, scales.float(), zeros, how, global_scale=whole).float()

    return fake


def _torch_cast(dtype: torch.dtype) -> Fake:
    return lambda x: x.to(dtype).float()


def _torch_int8(is_by_row: bool) -> Fake:
    def by_row(x: Tensor) -> Tensor:
        scale = x.abs().amax(-1) / 127
        zero = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scale, zero, 0, -128, 127)

    def whole(x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, float(x.abs().amax()) / 127, 0, -128, 127)

    return by_row if is_by_row else whole


def _numpy_cast(package: str, name: str) -> Fake:
    dtype = getattr(importlib.import_module(package), name)
    return lambda x: torch.from_numpy(x.numpy().astype(dtype).astype("float32"))


def _ml_dtypes_mxfp4() -> Fake:
    import ml_dtypes
    import numpy as np

    def fake(x: Tensor) -> Tensor:
        blocks = x.numpy().reshape(-1, 32)
        amax = np.abs(blocks).max(-1, keepdims=True)
        scale = np.ldexp(np.float32(1), np.frexp(amax)[1] - 3)
        values = (blocks / scale).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scale
        return torch.from_numpy(values).view_as(x)

    return fake


def _gfloat_round(name: str) -> Fake:
    import gfloat
    import gfloat.formats

    info = getattr(gfloat.formats, name)
    return lambda x: torch.from_numpy(gfloat.round_ndarray(info, x.double().numpy(), sat=True)).float()


def _gfloat_mxfp4() -> Fake:
    import gfloat
    import gfloat.formats

    info = gfloat.formats.format_info_mxfp4_e2m1

    def fake(x: Tensor) -> Tensor:
        rows = (
            gfloat.quantize_block(info, b, gfloat.compute_scale_amax) for b in x.double().view(-1, 32).numpy()
        )
        return torch.tensor([list(row) for row in rows]).view_as(x).float()

    return fake


AO, CT, MO, QUARK = "torchao", "compressed-tensors", "nvidia-modelopt", "amd-quark"
_FP4, _E4M3, _E5M2, _U8 = torch.float4_e2m1fn_x2, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint8
_HALF = "scale = amax / 127.5 (8 bits), amax / 7.5 (4 bits)"
_ORDER = "the same steps, scaled in another order: the last bit of a number differs"
_TIES = "a product with 1 / scale where we divide: a few ties fall to the other side"

PEERS = (
    _peer("torch", "e4m3fn", _torch_cast, _E4M3),
    _peer("torch", "e5m2", _torch_cast, _E5M2),
    _peer("torch", "e4m3fnuz", _torch_cast, torch.float8_e4m3fnuz),
    _peer("torch", "e5m2fnuz", _torch_cast, torch.float8_e5m2fnuz),
    _peer("torch", "bf16", _torch_cast, torch.bfloat16),
    _peer("torch", "fp16", _torch_cast, torch.float16),
    _peer("torch", "int8_token", _torch_int8, True, differs=_TIES),
    _peer("torch", "int8_tensor", _torch_int8, False, differs=_TIES),
    _peer("ml-dtypes", "e4m3fn", _numpy_cast, "ml_dtypes", "float8_e4m3fn"),
    _peer("ml-dtypes", "e5m2", _numpy_cast, "ml_dtypes", "float8_e5m2"),
    _peer("ml-dtypes", "e4m3fnuz", _numpy_cast, "ml_dtypes", "float8_e4m3fnuz"),
    _peer("ml-dtypes", "e5m2fnuz", _numpy_cast, "ml_dtypes", "float8_e5m2fnuz"),
    _peer("ml-dtypes", "e2m3", _numpy_cast, "ml_dtypes", "float6_e2m3fn"),
    _peer("ml-dtypes", "e3m2", _numpy_cast, "ml_dtypes", "float6_e3m2fn"),
    _peer("ml-dtypes", "e2m1", _numpy_cast, "ml_dtypes", "float4_e2m1fn"),
    _peer("ml-dtypes", "bf16", _numpy_cast, "ml_dtypes", "bfloat16"),
    _peer("ml-dtypes", "mxfp4", _ml_dtypes_mxfp4),
    _peer("en-dtypes", "hif8", _numpy_cast, "en_dtypes", "hifloat8"),
    _peer("en-dtypes", "e1m2", _numpy_cast, "en_dtypes", "float4_e1m2"),
    _peer("en-dtypes", "e2m1", _numpy_cast, "en_dtypes", "float4_e2m1"),
    _peer("gfloat", "e4m3fn", _gfloat_round, "format_info_ocp_e4m3", share=1 / 16),
    _peer("gfloat", "e2m1", _gfloat_round, "format_info_ocp_e2m1", share=1 / 16),
    _peer("gfloat", "mxfp4", _gfloat_mxfp4, share=1 / 4096),
    _peer(AO, "mxfp4", _torchao_mx, _FP4, "floor"),
    _peer(AO, "mxfp4_v4", _torchao_mx, _FP4, "rceil"),
    _peer(AO, "mxfp4_even", _torchao_mx, _FP4, "even"),
    _peer(AO, "mxfp4_ceil", _torchao_mx, _FP4, "ceil"),
    _peer(AO, "mxfp6_e2m3", _torchao_mx, "fp6_e2m3", "floor"),
    _peer(AO, "mxfp6_e3m2", _torchao_mx, "fp6_e3m2", "floor"),
    _peer(AO, "mxfp8_e4m3", _torchao_mx, _E4M3, "floor"),
    _peer(AO, "mxfp8_e5m2", _torchao_mx, _E5M2, "floor"),
    _peer(AO, "fp8_e4m3_1x32_ue8m0", _torchao_mx, _E4M3, "rceil"),
    _peer(AO, "fp8_e4m3_tensor", _torchao_fp8, (0, 0)),
    _peer(AO, "fp8_e4m3_1x128", _torchao_fp8, (1, 128)),
    _peer(AO, "fp8_e4m3_128x128", _torchao_fp8, (128, 128)),
    _peer(AO, "nvfp4", _torchao_nvfp4, True, differs=_TIES),
    _peer(AO, "nvfp4_single", _torchao_nvfp4, False, differs=_TIES),
    _peer(AO, "int8_tensor", _torchao_int, 8, (0, 0), differs=_TIES),
    _peer(AO, "int8_token", _torchao_int, 8, (1, 0), differs=_TIES),
    _peer(AO, "int8_group128", _torchao_int, 8, (1, 128), differs=_TIES),
    _peer(AO, "int4_channel", _torchao_int, 4, (1, 0), differs=_TIES),
    _peer(AO, "int4_group32", _torchao_int, 4, (1, 32), differs=_TIES),
    _peer(AO, "int4_group128", _torchao_int, 4, (1, 128), differs=_TIES),
    _peer(QUARK, "mxfp4", _quark_mx, "fp4", "floor"),
    _peer(QUARK, "mxfp4_even", _quark_mx, "fp4", "even"),
    _peer(QUARK, "mxfp4_ceil", _quark_mx, "fp4", "ceil"),
    _peer(QUARK, "mxfp6_e2m3", _quark_mx, "fp6_e2m3", "floor"),
    _peer(QUARK, "mxfp6_e3m2", _quark_mx, "fp6_e3m2", "floor"),
    _peer(QUARK, "mxfp8_e4m3", _quark_mx, "fp8_e4m3", "floor"),
    _peer(QUARK, "mxfp8_e5m2", _quark_mx, "fp8_e5m2", "floor"),
    _peer(QUARK, "fp8_e4m3_1x128", _quark_fp8, 128),
    _peer(QUARK, "fp8_e4m3_tensor", _quark_fp8, 0),
    _peer(CT, "fp8_e4m3_tensor", _compressed_tensors, 8, "tensor"),
    _peer(CT, "fp8_e4m3_1x128", _compressed_tensors, 8, "group", "float", 128),
    _peer(CT, "fp8_e4m3_128x128", _compressed_tensors, 8, "block"),
    _peer(CT, "fp8_e4m3_1x32_ue8m0", _compressed_tensors, 8, "group", "float", 32, _U8),
    _peer(CT, "mxfp4_even", _compressed_tensors, 4, "group", "float", 32, _U8),
    _peer(CT, "nvfp4", _compressed_tensors, 4, "tensor_group", "float", 16, _E4M3, differs=_ORDER),
    _peer(CT, "int8_token", _compressed_tensors, 8, "channel", "int", differs=_HALF),
    _peer(CT, "int8_tensor", _compressed_tensors, 8, "tensor", "int", differs=_HALF),
    _peer(CT, "int8_group128", _compressed_tensors, 8, "group", "int", 128, differs=_HALF),
    _peer(CT, "int4_channel", _compressed_tensors, 4, "channel", "int", differs=_HALF),
    _peer(CT, "int4_group32", _compressed_tensors, 4, "group", "int", 32, differs=_HALF),
    _peer(CT, "int4_group128", _compressed_tensors, 4, "group", "int", 128, differs=_HALF),
    _peer(MO, "fp8_e4m3_tensor", _modelopt, "FP8QTensor"),
    _peer(MO, "fp8_e4m3_1x128", _modelopt, "FP8QTensor", None, {-1: 128}),
    _peer(MO, "fp8_e4m3_128x128", _modelopt, "FP8QTensor", None, {-1: 128, -2: 128}),
    _peer(MO, "fp8_e4m3_1x32_ue8m0", _modelopt, "MXFP8QTensor"),
    _peer(MO, "mxfp4_modelopt", _modelopt, "MXFP4QTensor", 32),
    _peer(MO, "nvfp4", _modelopt, "NVFP4QTensor", 16),
    _peer(MO, "int8_group128", _modelopt, "INT8QTensor", None, {-1: 128}),
    _peer(MO, "int4_group128", _modelopt, "INT4QTensor", 128, differs=_ORDER),
)
