"""One gradient out of many ranks' parts, with messages in BF16: added hop by hop, or sent once, then added.

A ring adds on the way: each hop receives a partial sum in BF16, adds its part and rounds again, so errors
pile up with the number of ranks. In two phases every rank first sends its part of each piece to the piece's
owner, rounded once (all-to-all), and the owner adds all of them in FP32. Both move half of what FP32 would.

Report: section 3.5.1 (gradients of the experts). Axes: p ranks.
"""

from dataclasses import replace

from torch import Generator, Tensor

from workbench.quant.cast import CastFormat
from workbench.quant.fake import fake_quantize
from workbench.quant.formats import format_of


def round_to_bf16(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Each number as one of BF16, in x's dtype: the nearest; with a generator one of both beside it.

    By chance the mean is x: what is lost on one rank is found on another.
    """
    fmt = format_of("bf16")
    assert isinstance(fmt, CastFormat)
    by_chance = replace(fmt, ties="stochastic")
    return fake_quantize(x, fmt if generator is None else by_chance, generator=generator)


def ring_sum(parts: Tensor) -> Tensor:
    """The sum as a ring with BF16 adders takes it: (p, ...) -> (...)."""
    total = round_to_bf16(parts[0])
    for part in parts[1:]:
        total = round_to_bf16(total + part)
    return total


def two_phase_sum(parts: Tensor, generator: Generator) -> Tensor:
    """The sum of parts that are each rounded once, by chance: (p, ...) -> (...)."""
    return round_to_bf16(parts, generator).sum(0)
