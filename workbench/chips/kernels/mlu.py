"""Cambricon MLU: clusters of four IPU cores and a shared memory, every move explicit.

A core keeps activations in its NRAM and weights in its WRAM. The cluster's memory core brings a block of
activations once into the shared SRAM and hands it to its four cores, which hold different columns of the
weights: a quarter of the activation traffic reaches the cluster.

Nothing here is measured: sizes per core of MLU590 and 690 are not public, and no published kernel time of a
Cambricon chip survived checking. The constants are assumed, with the bands that follow.

Source: MLUarch02 and MLUarch03 programming guides (recalled).
"""

from __future__ import annotations

import numpy as np

from workbench.chips.kernels.constants import Params
from workbench.chips.kernels.machine import Machine
from workbench.chips.kernels.tiles import GRAIN, TileCost, Tilings, Work, cut

ENGINES = {
    "load": "GDRAM DMA",
    "feed": "SRAM to NRAM",
    "compute": "IPU",
    "vector": "vector",
    "store": "store",
}
GEMM = Tilings.of([(32, 64), (64, 128), (128, 128), (256, 128), (256, 256)], (1, 2, 4))
ATTENTION = Tilings.of([(64, 64), (128, 128)], (1, 2, 4, 8, 16))
CORES_PER_CLUSTER = 4.0
STEP_BYTES = 512.0  # of one row along k: a block of NRAM


def gemm_cost(machine: Machine, tilings: Tilings, work: Work, params: Params) -> TileCost:
    """Cost of one tile on one IPU core.

    Shapes: tilings (c, 1) or (n,), work (n,) -> (c, n) or (n,).
    """
    c = cut(tilings, work, machine.cores, GRAIN)
    activations, weights = c.rows * work.a_bytes * c.part, c.columns * work.w_bytes * c.part
    length = c.part * work.w_bytes
    return TileCost(
        tiles=c.tiles,
        steps=np.maximum(np.ceil(length / STEP_BYTES), 1.0),
        first=np.minimum(STEP_BYTES / length, 1.0),
        load=(activations / CORES_PER_CLUSTER + weights) / params.load,
        feed=activations / params.load,
        compute=c.rows * (2.0 * c.columns * c.part / (work.peak / machine.cores * params.efficiency)),
        store=c.stored_bytes / params.load,
        floor=length / STEP_BYTES * params.step,
        extra=c.joined_bytes / (machine.cores * params.load),
    )
