"""AMD GPUs: compute units (CU) on several accelerator dies.

A CU stages operand tiles in its local data share (LDS) and multiplies them on its matrix cores; each of its
four SIMDs holds a quarter of the tile and reads its own operands from the LDS, so that each operand is
read twice. Dies have private level-2 caches: what reaches a CU per second is its share of them.

Source: CDNA 3 white paper and ISA manual (recalled).
"""

from __future__ import annotations

import numpy as np

from workbench.chips.kernels.constants import Params
from workbench.chips.kernels.machine import Machine
from workbench.chips.kernels.tiles import GRAIN, TileCost, Tilings, Work, cut

ENGINES = {"load": "global load", "feed": "LDS", "compute": "MFMA", "vector": "VALU", "store": "store"}
GEMM = Tilings.of([(64, 64), (64, 128), (128, 128), (128, 256), (256, 128)], (1, 2, 4, 8))
ATTENTION = Tilings.of([(64, 64), (128, 64)], (1, 2, 4, 8, 16, 32))
STEP_BYTES = 128.0
LDS_BYTES_PER_CYCLE = 128.0
READS_OF_OPERAND = 2.0  # four SIMDs in two rows and two columns


def gemm_cost(machine: Machine, tilings: Tilings, work: Work, params: Params) -> TileCost:
    """Cost of one tile on one CU.

    Shapes: tilings (c, 1) or (n,), work (n,) -> (c, n) or (n,).
    """
    c = cut(tilings, work, machine.cores, GRAIN)
    operands = (c.rows * work.a_bytes + c.columns * work.w_bytes) * c.part
    length = c.part * work.w_bytes
    return TileCost(
        tiles=c.tiles,
        steps=np.maximum(np.ceil(length / STEP_BYTES), 1.0),
        first=np.minimum(STEP_BYTES / length, 1.0),
        load=operands / params.load,
        feed=READS_OF_OPERAND * operands / (LDS_BYTES_PER_CYCLE * machine.clock_hz),
        compute=c.rows * (2.0 * c.columns * c.part / (work.peak / machine.cores * params.efficiency)),
        store=c.stored_bytes / params.load,
        floor=length / STEP_BYTES * params.step,
        extra=c.joined_bytes / (machine.cores * params.load),
    )
