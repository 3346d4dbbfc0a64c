"""Huawei Ascend: DaVinci cube cores (AIC), each paired with two vector cores (AIV) since 910B.

A cube multiplies 16 × 16 × 16 in a cycle. MTE2 brings operand blocks from memory or L2 into L1 (512 KB), MTE1
cuts them into L0A and L0B (two halves of 32 KB each, used in turn), the cube adds into L0C, and FIXPIPE
carries the block out. A 128 × 256 block of FP32 sums fills the 128 KB L0C of 910B and 910C: the cube then
waits for FIXPIPE, where a 128 × 128 block leaves room for the next. The 256 KB of 950 hold two.

Cube and vector cores of 910B and 910C meet only in L2: attention writes its scores there, reads them back on
the vector core, and returns the probabilities the same way. 950 has direct paths both ways.

Source: CANN NpuArch tables (DAV_2201, DAV_3510); arXiv 2506.12708.
"""

from __future__ import annotations

import numpy as np

from workbench.chips.kernels.constants import Params
from workbench.chips.kernels.machine import Machine
from workbench.chips.kernels.tiles import GRAIN, TileCost, Tilings, Work, cut

ENGINES = {"load": "MTE2", "feed": "MTE1", "compute": "cube", "vector": "vector", "store": "FIXPIPE"}
GEMM = Tilings.of([(16, 256), (64, 128), (128, 128), (128, 256), (256, 128)], (1, 2, 4, 8))
ATTENTION = Tilings.of([(64, 128), (128, 128)], (1, 2, 4, 8, 16, 32))
FEED_BYTES_PER_CYCLE = 256.0  # L1 to L0A and L0B together; assumed, see calibration.json
# Bytes a score takes on its way through L2: FP32 out and in, BF16 back out and in.
HAND_OVER_BYTES = {"DAV_2201": 12.0}


def gemm_cost(machine: Machine, tilings: Tilings, work: Work, params: Params) -> TileCost:
    """Cost of one output block on one cube core.

    Shapes: tilings (c, 1) or (n,), work (n,) -> (c, n) or (n,).
    """
    c = cut(tilings, work, machine.cores, GRAIN)
    operands = (c.rows * work.a_bytes + c.columns * work.w_bytes) * c.part
    stored = c.stored_bytes / params.load
    # One step fills half of L0A or L0B, whichever side of the block is longer.
    widest = np.maximum(tilings.rows * work.a_bytes, tilings.columns * work.w_bytes)
    step = np.minimum(machine.l0_bytes / 2 / widest, c.part)
    compute = c.rows * (2.0 * c.columns * c.part / (work.peak / machine.cores * params.efficiency))
    # Without room in L0C for a second block, the cube waits until the first is carried out.
    is_alone = tilings.rows * tilings.columns * 4.0 * 2 > machine.l0c_bytes
    return TileCost(
        tiles=c.tiles,
        steps=np.maximum(np.ceil(c.part / step), 1.0),
        first=step / c.part,
        load=operands / params.load,
        feed=operands / (FEED_BYTES_PER_CYCLE * machine.clock_hz),
        compute=compute + np.where(is_alone, stored, 0.0),
        store=stored,
        floor=c.part / step * params.step,
        extra=c.joined_bytes / (machine.cores * params.load),
    )
