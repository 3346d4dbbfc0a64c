"""What the kernel simulators know of a chip: one device as plain numbers in SI units.

A device is what software counts as one: of a package of two dies that are programmed apart (Ascend 910C,
MI250X) it is one die.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from workbench.chips.catalog import Chip, load_chip

# Where neither the chip nor its family has a published count of cores: the FLOP/s (BF16) of one such core of
# the same age. It sets the grain of waves, not the peak.
CORE_FLOP_PER_S = MappingProxyType({"davinci": 13.5e12, "mlu": 6.5e12, "sm": 15e12, "cu": 10e12})
# Vector FLOP/s as a share of the BF16 matrix peak, where none is published: the share of the family's others.
VECTOR_SHARE = MappingProxyType({"davinci": 1 / 32, "mlu": 1 / 16, "sm": 1 / 16, "cu": 1 / 16})
# Constants hold for parts with more than this of their generation's arithmetic; one with less is cut on
# purpose, and all else in it is as in the others.
CUT = 0.5
FAMILY_OF = MappingProxyType({"tpu": "cu", "other": "cu", "cpu": "cu"})


@dataclass(frozen=True)
class Machine:
    """One device.

    generation: the key of its constants; pace: FLOP/s of a core over half of those of its generation's
    uncut parts, where it is cut to less (H20); cores: matrix units with a tile of their own (multiprocessors,
    cubes, compute units, IPU cores); vector_flop_per_s: FP32; spread: relative half-width of the band that
    the published numbers themselves leave (a quarter where only community tables exist); notes: what was
    assumed.
    """

    name: str
    family: str
    generation: str
    pace: float
    cores: float
    clock_hz: float
    vector_flop_per_s: float
    memory_byte_per_s: float
    l2_bytes: float
    l0_bytes: float
    l0c_bytes: float
    spread: float
    notes: tuple[str, ...]


def machine_of(chip: Chip, generations: Mapping[str, str]) -> Machine:
    """One device of a chip; what is not published is assumed, and said in `notes`.

    generations: of chips by key, as the calibration has them.

    Raises:
        ValueError: neither a bandwidth nor a peak is known.
    """
    device = chip.device()
    family = FAMILY_OF.get(device.family, device.family)
    notes = []
    if family != device.family:
        notes.append(f"{device.key}: no simulator of its own family; it is treated as rows of compute units")
    peak = device.arithmetic("bf16", "bf16").flop_per_s
    cores = device.matrix_cores
    if cores is None or device.family in FAMILY_OF:
        cores = max(round(peak / CORE_FLOP_PER_S[family]), 1)
        notes.append(f"{device.key}: number of cores not published, {cores} assumed")
    vector = device.peak_flop_per_s.get("vector_fp32") or device.peak_flop_per_s.get("fp32")
    if vector is None:
        vector = peak * VECTOR_SHARE[family]
        notes.append(f"{device.key}: vector peak not published, {vector:.3g} FLOP/s assumed")
    if device.is_uncertain:
        notes.append(
            f"{device.key}: peaks and bandwidth come from community tables; read the band, not the line"
        )
    generation = generations.get(chip.key.removesuffix("-custom"), device.generation or family)
    share = peak / cores / max(_uncut_flop_per_s(generation, tuple(generations.items())), peak / cores)
    return Machine(
        name=device.key,
        family=family,
        generation=generation,
        pace=min(share / CUT, 1.0),
        cores=float(cores),
        clock_hz=device.clock_hz or 1e9,
        vector_flop_per_s=vector,
        memory_byte_per_s=device.need("memory_byte_per_s"),
        l2_bytes=device.l2_bytes or 0.0,
        l0_bytes=device.l0a_bytes or 65536.0,
        l0c_bytes=device.l0c_bytes or 131072.0,
        spread=0.25 if device.is_uncertain else 0.0,
        notes=tuple(notes),
    )


@lru_cache(maxsize=64)
def _uncut_flop_per_s(generation: str, generations: tuple[tuple[str, str], ...]) -> float:
    """The most that one core of a generation's chips does in BF16; 0 where no count of cores is published."""
    found = [0.0]
    for device in (load_chip(key).device() for key, other in generations if other == generation):
        peak = device.peak_flop_per_s.get("bf16")
        if device.matrix_cores and peak:
            found.append(peak / device.matrix_cores)
    return max(found)
