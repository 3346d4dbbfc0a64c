"""Number formats: what a code of a few bits means, blocks that share a scale, and the bytes they become.

What reaches into `workbench.model` is loaded at its first use: the model's checkpoint reader imports this
package.
"""

from importlib import import_module
from typing import Any

from workbench.quant.blocks import BlockFormat
from workbench.quant.cast import CastFormat
from workbench.quant.element import Element
from workbench.quant.elements import ELEMENTS
from workbench.quant.formats import FORMATS, format_of, quantize
from workbench.quant.lossless import fp4_to_fp8, mxfp4_to_nvfp4, scale_ratios
from workbench.quant.quantized import Format, Quantized

_LAZY = {
    "fake_quantize": "fake",
    "apply": "application",
    "Recipe": "recipes",
    "Rule": "recipes",
    "RECIPES": "recipes",
    "matmul": "arithmetic.matmul",
    "linear": "arithmetic.linear",
    "Arithmetic": "arithmetic.matmul",
    "ARITHMETICS": "arithmetic.chips",
    "chip_arithmetic": "arithmetic.chips",
    "arithmetic_of": "arithmetic.model",
}
_LAZY_MODULES = ("instruments", "ptq")

__all__ = [
    "ELEMENTS",
    "FORMATS",
    "BlockFormat",
    "CastFormat",
    "Element",
    "Format",
    "Quantized",
    "format_of",
    "fp4_to_fp8",
    "mxfp4_to_nvfp4",
    "quantize",
    "scale_ratios",
    *_LAZY,
    *_LAZY_MODULES,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return import_module(f"workbench.quant.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'workbench.quant' has no attribute {name!r}; it has {sorted(__all__)}")
    return getattr(import_module(f"workbench.quant.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
