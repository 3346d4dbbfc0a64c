"""Attention and index scores as tiled work: rows of queries × heads against a set of keys.

One unit is a block of query rows against a part of the keys: load a block of keys, multiply, softmax,
multiply with the values. Decoding has few rows and cuts the keys into parts for more cores (their results are
joined at the end); a prefill has rows enough. With shared keys (MLA, V4) all heads of a query are rows of one
block.

Source: FlashAttention-2 (arXiv 2307.08691) and FlashMLA for the schedule.
"""

from __future__ import annotations

import numpy as np

from workbench.chips.kernels.constants import Params
from workbench.chips.kernels.machine import Machine
from workbench.chips.kernels.tiles import GRAIN, TileCost, Tilings, Work

KEYS_PER_STEP = 64.0


def attention_cost(
    machine: Machine, hand_over_bytes: float, tilings: Tilings, work: Work, params: Params
) -> TileCost:
    """Cost of one unit on one core: work.n keys of work.k channels (and work.value_k of values).

    hand_over_bytes: what a score moves through L2 between matrix and vector units.
    Shapes: tilings (c, 1) or (n,), work (n,) -> (c, n) or (n,).
    """
    rows = np.minimum(tilings.rows, GRAIN * np.ceil(work.m / GRAIN))
    keys = work.n / tilings.splits
    units = work.groups * np.ceil(work.m / tilings.rows) * tilings.splits
    core_flop = work.peak / machine.cores * params.efficiency
    results = rows * work.value_k * np.where(tilings.splits > 1, 4.0, work.o_bytes)
    joined = np.where(tilings.splits > 1, work.groups * work.m * work.value_k * tilings.splits * 4.0, 0.0)
    steps = np.maximum(keys / KEYS_PER_STEP, 1.0)
    return TileCost(
        tiles=np.ceil(units / machine.cores),
        steps=np.ceil(steps),
        first=0.0,  # the ramp holds it
        load=(keys * work.w_bytes + rows * work.a_bytes) * work.k / params.load,
        compute=2.0 * rows * keys * (work.k + work.value_k) / core_flop,
        feed=rows * keys * hand_over_bytes / params.load,
        vector=rows * keys * work.vector_flop / (machine.vector_flop_per_s / machine.cores),
        store=results / params.load,
        floor=steps * params.step,
        extra=joined / (machine.cores * params.load),
        # A unit does not begin before the one before it has left: queries in, last softmax, results out. That
        # takes as long on a part whose arithmetic is cut, and so fewer of its longer steps.
        gap=params.ramp * machine.pace / steps,
    )
