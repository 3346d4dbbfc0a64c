"""Rounding to a format and back in one step: what training with a format in mind does at every pass."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.quant.blocks import BlockFormat
from workbench.quant.element import check_floats
from workbench.quant.execution import run
from workbench.quant.formats import format_of
from workbench.quant.kernels import cut, has_kernel
from workbench.quant.pages import empty_like
from workbench.quant.quantized import Format


def fake_quantize(
    x: Tensor,
    fmt: str | Format,
    out: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    compiled: bool | None = None,
) -> Tensor:
    """`quantize(x, fmt, generator).dequantize()`, bit for bit, fast and differentiable.

    Shapes: float (..., i) -> the same, in x's dtype.
    The gradient passes unchanged, also where numbers were cut off (straight-through). The result is written
    to `out` if given, which may be x itself; that saves the fresh memory of a large result, which costs as
    much time as the rounding.

    compiled: True takes a loop made by torch.compile, which costs seconds once for each format and dtype and
    serves every shape; False takes plain torch code; None takes plain code until this process has rounded
    execution.COMPILE_AFTER numbers to the format, and the compiled loop from then on. The bits are the same.
    Where torch.compile finds no C++ compiler, plain code goes on and a warning says so, once.

    Raises:
        ValueError: what `quantize` refuses, NaN and infinity included (`out` is overwritten then); or out
            does not fit x; or out is given and x needs a gradient.
    Source: straight-through rounding of FP32 weights: V4 report, section 3.4.
    """
    fmt = format_of(fmt)
    check_floats("fake_quantize", x)
    needs_gradient = x.requires_grad and torch.is_grad_enabled()
    if out is not None:
        _check_out(x, out, needs_gradient)
    if needs_gradient:
        return _StraightThrough.apply(x, fmt, generator, compiled)
    with torch.no_grad():
        return _round(x, fmt, out, generator, compiled)


def _check_out(x: Tensor, out: Tensor, needs_gradient: bool) -> None:
    is_alike = (out.shape, out.dtype, out.device) == (x.shape, x.dtype, x.device)
    bytes_apart = abs(out.data_ptr() - x.data_ptr())
    is_in_place = bytes_apart == 0 and x.is_contiguous()
    if is_alike and out.is_contiguous() and not needs_gradient and (is_in_place or bytes_apart >= x.nbytes):
        return
    raise ValueError(
        f"fake_quantize: got out {out.dtype} {tuple(out.shape)} on {out.device} for x {x.dtype} "
        f"{tuple(x.shape)} "
        f"on {x.device}; it needs a contiguous tensor of x's shape, dtype and device, x itself or apart from "
        f"it{', and an x without a gradient' if needs_gradient else ''}; pass torch.empty_like(x), under "
        f"torch.no_grad()"
    )


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, fmt: Format, generator: torch.Generator | None, compiled: bool | None
    ) -> Tensor:
        return _round(x, fmt, None, generator, compiled)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient, None, None, None


def _round(
    x: Tensor, fmt: Format, out: Tensor | None, generator: torch.Generator | None, compiled: bool | None
) -> Tensor:
    if not has_kernel(fmt, x):
        # By way of codes: slower, but it knows every rule, and what to say where a tensor does not fit.
        values = fmt.quantize(x, generator).dequantize()
        return values.to(x.dtype) if out is None else out.copy_(values)
    fill = _fill(x, fmt)
    if any(fill):
        values = _round(F.pad(x, fill), fmt, None, generator, compiled)[..., : x.shape[-2], : x.shape[-1]]
        return values.contiguous() if out is None else out.copy_(values)
    result = empty_like(x) if out is None else out
    peak = run(cut(x.contiguous(), fmt), cut(result, fmt), fmt, compiled)
    if not math.isfinite(peak):
        raise ValueError(
            f"fake_quantize: got NaN or infinity among {x.numel()} numbers; it needs finite ones; mend them, "
            f"or take quantize(x, {fmt.name!r}, specials='propagate').dequantize()"
        )
    return result


def _fill(x: Tensor, fmt: Format) -> tuple[int, ...]:
    """What a tensor lacks to be whole blocks, as F.pad takes it: columns, then rows."""
    if not isinstance(fmt, BlockFormat) or fmt.rows is None:
        return ()
    fmt.scale_shape(tuple(x.shape))  # refuses a size that does not divide, unless the format cuts blocks
    columns = -x.shape[-1] % (fmt.columns or x.shape[-1])
    return (0, columns) if fmt.rows == 1 else (0, columns, 0, -x.shape[-2] % fmt.rows)
