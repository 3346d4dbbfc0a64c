"""What a chip computes a product in, given the formats that its operands are released in.

A chip multiplies two operands of one format. FP4 weights with FP8 activations run as FP8 × FP8: on
current hardware the peak is that of FP8 (V4 report, section 3.1). A chip without a format takes the next:

    FP4 → FP8 → INT8 → BF16 → FP16 → FP32          TF32 → FP32

INT8 stands for weights quantised anew, as the recipes for Ascend 910C do; from BF16 on weights keep their
stored format and are widened on the way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_CHAIN = ("fp4", "fp8", "int8", "bf16", "fp16", "fp32")
_WIDTH = {"fp4": 0, "int4": 0, "fp8": 1, "int8": 2, "bf16": 3, "fp16": 4, "tf32": 5, "fp32": 5}
# Formats that go by another name on some chips, at the same number of bits.
_SAME = {"mxfp4": "fp4", "nvfp4": "fp4", "mxfp8": "fp8", "hif8": "fp8"}
_REQUANTISED = {"fp8": "int8", "fp4": "int4"}


@dataclass(frozen=True)
class Arithmetic:
    """How a product runs.

    compute: the format whose peak applies; weight and activation: the formats in memory;
    is_native: the chip multiplies the released formats; note: what happens otherwise.
    """

    compute: str
    flop_per_s: float
    weight: str
    activation: str
    is_native: bool
    note: str


def choose_arithmetic(chip: str, peaks: Mapping[str, float], weight: str, activation: str) -> Arithmetic:
    """The arithmetic of weight × activation on a chip with these peaks.

    Raises:
        ValueError: a format that no chip has, or a chip whose peaks are not known.
    """
    for name in (weight, activation):
        if name not in _WIDTH and name not in _SAME:
            raise ValueError(
                f"Chip.arithmetic: format {name!r} is unknown; choose one of {sorted((*_WIDTH, *_SAME))}"
            )
    for name in (weight, activation):
        # HiF8, MXFP4 and so on, where the chip has that very format; otherwise its plain namesake.
        if name in _SAME and name in peaks and weight == activation:
            return Arithmetic(name, peaks[name], weight, activation, True, "")
    w, a = _SAME.get(weight, weight), _SAME.get(activation, activation)
    wanted = w if _WIDTH[w] >= _WIDTH[a] else a
    if "fp32" in (w, a):
        # Kernels for FP32 weights (router, residual mixing) let the tensor cores round to TF32.
        wanted = "tf32"
    compute = _first(chip, peaks, wanted)
    is_native = compute == wanted
    if is_native:
        note = "" if w == a or wanted == "tf32" else f"{w} weights are widened to {compute} on the way in"
        return Arithmetic(compute, peaks[compute], weight, activation, True, note)
    if compute == "int8":
        w, a = _REQUANTISED.get(w, w), _REQUANTISED.get(a, a)
        note = f"{chip} has no {wanted}: weights and activations are quantised to {w} and {a} beforehand"
        return Arithmetic(compute, peaks[compute], w, a, False, note)
    note = f"{chip} has no {wanted}: operands are widened to {compute} on the way in"
    return Arithmetic(compute, peaks[compute], weight, activation, False, note)


def _first(chip: str, peaks: Mapping[str, float], wanted: str) -> str:
    """The first format from `wanted` on that has a peak: never a narrower one, which would lose numbers."""
    chain: tuple[str, ...] = _CHAIN
    if wanted == "tf32":
        # Half the bits at most: where a chip multiplies no FP32, kernels split or round to 16 bits.
        chain = ("tf32", "fp32", "bf16", "fp16")
    elif wanted == "int4":
        chain = ("int4", "int8", "bf16", "fp16", "fp32")
    for name in chain[chain.index(wanted) :]:
        if name in peaks:
            return name
    raise ValueError(
        f"Chip.arithmetic: {chip} has no known peak for {wanted} or a format that can stand in for it "
        f"(known: {', '.join(peaks) or 'none'}); a time needs one; give it with chip.replace({wanted}=…)"
    )
