"""The table of element formats: how many bits, how they split, which codes are no numbers.

Source: OCP OFP8 1.0 and MX 1.0 (E4M3, E5M2, E2M3, E3M2, E2M1, E8M0); AMD CDNA3 (FNUZ); NVFP4 (UE4M3);
Huawei HiFloat8 and HiFloat4 (E6M2, E1M2); DeepSeek TileKernels (E5M6: fp16 without its last four bits, so
infinity and NaN have fp16's codes; V3 caches the inputs of some products in it).
"""

from workbench.quant.element import Element
from workbench.quant.floats import FloatFormat
from workbench.quant.hif8 import HiF8
from workbench.quant.integers import INT4, INT8, INT16

# Exponent bits, mantissa bits, bias, what is no number.
_ROWS: tuple[Element, ...] = (
    FloatFormat("e4m3fn", 4, 3, 7, "all ones"),
    FloatFormat("e5m2", 5, 2, 15, "ieee"),
    FloatFormat("e4m3fnuz", 4, 3, 8, "minus zero"),
    FloatFormat("e5m2fnuz", 5, 2, 16, "minus zero"),
    FloatFormat("e2m3", 2, 3, 1, "none"),
    FloatFormat("e3m2", 3, 2, 3, "none"),
    FloatFormat("e2m1", 2, 1, 1, "none"),
    FloatFormat("e1m2", 1, 2, 1, "none"),
    HiF8("hif8"),
    # Scales of blocks: no sign.
    FloatFormat("e8m0", 8, 0, 127, "all ones", is_signed=False, has_zero=False),
    FloatFormat("ue4m3", 4, 3, 7, "all ones", is_signed=False),
    FloatFormat("e6m2", 6, 2, 48, "all ones", is_signed=False, has_zero=False),
    FloatFormat("e5m6", 5, 6, 15, "ieee"),
    # 16 bits and TF32, which has the exponent of one and the mantissa of the other.
    FloatFormat("fp16", 5, 10, 15, "ieee"),
    FloatFormat("bf16", 8, 7, 127, "ieee"),
    FloatFormat("tf32", 8, 10, 127, "ieee"),
    INT4,
    INT8,
    INT16,
)
ELEMENTS = {element.name: element for element in _ROWS}
