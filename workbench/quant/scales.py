"""How the largest magnitude of a block becomes its scale.

"MXFP4" names six things in six libraries: they differ in the rule for the power of two and in the rule for
ties. With a = amax of the block, max the element's largest number and emax its exponent:

    floor   2^(floor(log2 a) - emax)     clips a block whose a lies past max: OCP MX, torchao's default,
                                         microxcaling, gfloat, Ascend 950
    ceil    2^(ceil(log2 a) - emax)      never clips, wastes up to one binade
    rceil   2^ceil(log2(a / max))        never clips, wastes least: V4, ModelOpt, compressed-tensors (FP8)
    even    floor, after a was rounded half up to the element's mantissa: AMD Quark's default,
            compressed-tensors (FP4)
    amax    a / max, in fp32 or rounded to the scale's own format: DeepSeek-V3, NVFP4, integers
"""

import math
from typing import Literal

import torch
from torch import Tensor

from workbench.quant.element import Element
from workbench.quant.floats import FloatFormat

Rule = Literal["floor", "ceil", "rceil", "even", "amax"]


def emax(element: Element) -> int:
    """The exponent of the largest value: 2 for E2M1, 8 for E4M3."""
    return math.frexp(element.largest)[1] - 1


def power_of_two_codes(amax: Tensor, element: FloatFormat, rule: Rule) -> Tensor:
    """E8M0 codes of the scales. Shapes: fp32 (...) -> uint8 (...).

    The exponent is read from the bits after an addition that carries into it: a floating-point logarithm
    rounds up just below a power of two. Codes end at 0 and 254, 2^-127 and 2^127. a / max is taken as
    a · fp32(1 / max), which has the same exponent for every fp32 mantissa and every element here.

    Source: OCP MX 1.0, section 6.3 (floor); V4 reference kernels (rceil).
    """
    if rule == "rceil":
        amax, shift = amax * torch.tensor(1 / element.largest), 0
    else:
        shift = emax(element)
    carry = {"floor": 0, "even": 1 << 22 - element.mantissa_bits}.get(rule, 0x7FFFFF)
    exponent = (amax.view(torch.int32) + carry >> 23) - shift
    return exponent.clamp_(0, 254).to(torch.uint8)
