"""Running a format's kernel: in chunks of plain torch code, or as the loop that torch.compile makes of it."""

import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from workbench.quant.affine import AffineFormat
from workbench.quant.blocks import BlockFormat
from workbench.quant.kernels import KERNELS, needs_tensor_amax
from workbench.quant.quantized import Format

COMPILE_AFTER = 1 << 30
"""Numbers rounded to one format by plain code until compiling it pays: 64 tensors of 4096 × 4096."""

_CHUNK = 1 << 17  # numbers: the intermediates of a chunk stay in a core's cache

_rounded: Counter[Format] = Counter()
_no_loop: set[Format] = set()  # what the compiler failed on
_compiler_works = True


def run(x: Tensor, out: Tensor, fmt: Format, compiled: bool | None) -> float:
    """Write what x rounds to. Returns the greatest magnitude of x.

    Shapes: x and out as `kernels.cut` gives them.
    """
    # torch.compile gets lost when one of its inputs is written and shares memory with another.
    is_in_place = x.data_ptr() == out.data_ptr()
    is_apart = x.untyped_storage().data_ptr() != out.untyped_storage().data_ptr()
    if (is_in_place or is_apart) and _is_for_compiler(fmt, x.numel(), compiled):
        tensors = (x,) if is_in_place else (x, out)
        try:
            return float(_compiled(fmt, x)(*(_with_any_size(t, fmt) for t in tensors)))
        except InductorError as error:
            _go_on_in_plain_code(fmt, error)
    return _in_chunks(x, out, fmt)


def _is_for_compiler(fmt: Format, numbers: int, compiled: bool | None) -> bool:
    if not _compiler_works or fmt in _no_loop or compiled is False:
        return False
    if compiled is None:
        _rounded[fmt] += numbers
    return compiled or _rounded[fmt] > COMPILE_AFTER


# Plain code


def _in_chunks(x: Tensor, out: Tensor, fmt: Format) -> float:
    tensor_amax = None
    if needs_tensor_amax(fmt):
        least, greatest = torch.aminmax(x)  # reads once and writes nothing, unlike x.abs().amax()
        tensor_amax = torch.maximum(-least, greatest).float()
    peaks = []
    for part, into in zip(_chunks(x), _chunks(out), strict=True):
        values, magnitudes = KERNELS[type(fmt)](part.float(), fmt, tensor_amax)
        into.copy_(values)
        peaks.append(magnitudes.amax())
    return float(torch.stack(peaks).amax())


def _chunks(x: Tensor) -> list[Tensor]:
    """Whole blocks, together about _CHUNK numbers. Shapes: (n, r, C, c) -> several (n', r, C', c)."""
    _, r, C, c = x.shape
    high, wide = (max(1, _CHUNK // numbers) for numbers in (r * C * c, r * c))
    return [part for rows in x.split(high) for part in rows.split(wide, dim=2)]


# Compiled


_kernels: dict[Format, Callable[..., Tensor]] = {}


def _compiled(fmt: Format, x: Tensor) -> Callable[..., Tensor]:
    if fmt not in _kernels:
        # Once in plain code: a compiler cannot see constants that formats work out at first use.
        _whole(x[:1, :, :1].clone(), fmt=fmt)
        # The formats share one function. torch counts what it compiled from it, unless isolated; and it takes
        # blocks that differ between formats for sizes that vary, and makes slow loops, unless not dynamic.
        # Sizes that do vary are marked one by one.
        _kernels[fmt] = torch.compile(  # type: ignore[call-overload]  # torch's stubs lack the last two
            partial(_whole, fmt=fmt),
            fullgraph=True,
            dynamic=False,
            isolate_recompiles=True,
            recompile_limit=64,
        )
    return _kernels[fmt]


def _whole(x: Tensor, out: Tensor | None = None, *, fmt: Format) -> Tensor:
    """Write what x rounds to, into x itself without an out. Returns the greatest magnitude."""
    numbers = x.float()
    tensor_amax = numbers.abs().amax() if needs_tensor_amax(fmt) else None
    values, magnitudes = KERNELS[type(fmt)](numbers, fmt, tensor_amax)
    (x if out is None else out).copy_(values)
    return magnitudes.amax()


def _with_any_size(blocks: Tensor, fmt: Format) -> Tensor:
    """The same, marked so that one kernel serves every shape: all but the size of a block may change."""
    has_wide_rows = isinstance(fmt, AffineFormat) or (isinstance(fmt, BlockFormat) and fmt.columns is None)
    for axis in (0, 2, 3) if has_wide_rows else (0, 2):
        torch._dynamo.maybe_mark_dynamic(blocks, axis)
    return blocks


def _go_on_in_plain_code(fmt: Format, error: InductorError) -> None:
    global _compiler_works
    if isinstance(error.inner_exception, InvalidCxxCompiler):
        _compiler_works = False
        reason, remedy = "found no working C++ compiler", "install g++ to change that"
    else:
        _no_loop.add(fmt)
        first_line = str(error).strip().splitlines()[0]
        reason, remedy = f"failed on {fmt.name} ({first_line})", "other formats are not touched"
    warnings.warn(
        f"fake_quantize: torch.compile {reason}; going on with plain torch code, which gives the same "
        f"numbers some ten times slower; {remedy}",
        stacklevel=6,
    )
