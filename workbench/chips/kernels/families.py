"""The four simulators, by architecture family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workbench.chips.kernels import cu, davinci, mlu, sm
from workbench.chips.kernels.attention import attention_cost
from workbench.chips.kernels.constants import Params
from workbench.chips.kernels.machine import Machine
from workbench.chips.kernels.tiles import TileCost, Tilings, Work

FP4 = ("fp4", "mxfp4", "nvfp4")
CostOf = Callable[[Machine, Tilings, Work, Params], TileCost]


@dataclass(frozen=True)
class Family:
    """One architecture.

    engines: what it calls the unit of each stage; gemm, attention: tilings that fit its buffers;
    hand_over_bytes: what one attention score moves through L2 between matrix and vector units, by generation.
    """

    engines: Mapping[str, str]
    gemm: Tilings
    attention: Tilings
    gemm_cost: CostOf
    hand_over_bytes: Mapping[str, float]

    def attention_cost(self, machine: Machine, tilings: Tilings, work: Work, params: Params) -> TileCost:
        """Cost of a block of query rows against a part of the keys, on one core."""
        hand_over = self.hand_over_bytes.get(machine.generation, 0.0)
        return attention_cost(machine, hand_over, tilings, work, params)

    def usable_peak(self, peaks: Mapping[str, float], compute: str) -> float:
        """The peak a product can be fed at.

        B300 and GB300 raise the FP4 peak to three times FP8, but operands still arrive at twice the FP8 rate:
        measured NVFP4 products gain nothing over B200 (chips with FP4 at twice FP8).
        """
        peak = peaks[compute]
        if compute in FP4 and "fp8" in peaks:
            return min(peak, 2 * peaks["fp8"])
        return peak


FAMILIES: Mapping[str, Family] = {
    "sm": Family(sm.ENGINES, sm.GEMM, sm.ATTENTION, sm.gemm_cost, {}),
    "cu": Family(cu.ENGINES, cu.GEMM, cu.ATTENTION, cu.gemm_cost, {}),
    "davinci": Family(
        davinci.ENGINES, davinci.GEMM, davinci.ATTENTION, davinci.gemm_cost, davinci.HAND_OVER_BYTES
    ),
    "mlu": Family(mlu.ENGINES, mlu.GEMM, mlu.ATTENTION, mlu.gemm_cost, {}),
}
