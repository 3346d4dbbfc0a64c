"""NVIDIA GPUs: streaming multiprocessors (SM) that take tiles in waves.

An SM loads operand tiles through the level-2 cache into shared memory (TMA), multiplies them on its tensor
cores into registers or tensor memory, and applies scales, softmax and rounding on its CUDA cores. With fewer
tiles than SMs a kernel may cut k into parts that other SMs take; the parts are added at the end. DeepGEMM's
FP8 kernels do not: they promote partial sums to FP32 every 128 channels, in one place. On Blackwell two SMs
work as a pair on one tile of twice the rows; each loads half of the columns and both multiply with all.

Source: spec of the architectures (Hopper and Blackwell tuning guides, recalled); DeepSeek-V3 report, section
3.3.2, for the promotion.
"""

from __future__ import annotations

import numpy as np

from workbench.chips.kernels.constants import Params
from workbench.chips.kernels.machine import Machine
from workbench.chips.kernels.tiles import GRAIN, TileCost, Tilings, Work, cut

ENGINES = {
    "load": "TMA",
    "feed": "shared memory",
    "compute": "tensor cores",
    "vector": "CUDA cores",
    "store": "store",
}
GEMM = Tilings.of([(64, 64), (64, 128), (128, 128), (128, 256), (256, 128)], (1, 2, 4, 8))
ATTENTION = Tilings.of([(64, 64), (128, 128)], (1, 2, 4, 8, 16, 32))
STEP_BYTES = 128.0  # of one row along k: one swizzled line of shared memory
PAIRED = {"blackwell": 2.0}


def gemm_cost(machine: Machine, tilings: Tilings, work: Work, params: Params) -> TileCost:
    """Cost of one tile on one SM.

    Shapes: tilings (c, 1) or (n,), work (n,) -> (c, n) or (n,).
    """
    c = cut(tilings, work, machine.cores, GRAIN)
    length = c.part * work.w_bytes
    shared = PAIRED.get(machine.generation, 1.0)
    return TileCost(
        tiles=c.tiles,
        steps=np.maximum(np.ceil(length / STEP_BYTES), 1.0),
        first=np.minimum(STEP_BYTES / length, 1.0),
        load=(c.rows * work.a_bytes + c.columns / shared * work.w_bytes) * c.part / params.load,
        compute=c.rows * (2.0 * c.columns * c.part / (work.peak / machine.cores * params.efficiency)),
        store=c.stored_bytes / params.load,
        floor=length / STEP_BYTES * params.step,
        extra=c.joined_bytes / (machine.cores * params.load),
    )
