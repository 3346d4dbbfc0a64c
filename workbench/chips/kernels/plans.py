"""From operations to plans: the work to tile, the constants that apply, and the quickest tiling.

A plan says how operations of one kind run on one device, before anything is joined to a time.

Axes: o operations, n = o · settings, laid flat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.chips.catalog import Chip
from workbench.chips.kernels.constants import Calibration, Params
from workbench.chips.kernels.families import FAMILIES
from workbench.chips.kernels.machine import machine_of
from workbench.chips.kernels.tiles import Array, TileCost, Work, search
from workbench.chips.operations import Operation
from workbench.chips.precision import ACTIVATION_BYTES, WEIGHT_BYTES
from workbench.config import CSA, HCA, SWA

Sizes = Mapping[str, Array]
BITS = {
    **dict.fromkeys(("fp32", "tf32"), "32"),
    **dict.fromkeys(("bf16", "fp16"), "16"),
    **dict.fromkeys(("fp8", "mxfp8", "hif8", "int8"), "8"),
    **dict.fromkeys(("fp4", "mxfp4", "nvfp4", "int4"), "4"),
}
SMALL_TOPK = 32  # so many of a row stay in registers (the router): no kernel of its own
LONG_TOPK = 32768.0  # keys; the engine measured takes another top-k kernel somewhere between 16K and 64K
FIELDS = (
    "batch", "m", "n", "k", "k_value", "flop", "vector_flop", "weight_bytes", "read_bytes", "write_bytes",
    "cache_read_bytes", "cache_write_bytes",
)  # fmt: skip
MOVED = FIELDS[FIELDS.index("weight_bytes") :]
SPARSE = (CSA, HCA, SWA, "latent_sparse_attention")
STREAM_STEPS = 64.0  # blocks that follow one another through a core; drawn, not charged
STREAM_PATHS = {"elementwise": "vector", "gather": "gather", "topk": "topk"}


@dataclass(frozen=True)
class Kind:
    """What a product runs in: the format computed in, its peak, and the formats in memory."""

    compute: str
    peak: float
    weight: str
    activation: str


@dataclass(frozen=True)
class Plan:
    """How operations run. cost: tiles and stages of the busiest core; memory_s: time of the shared memory at
    nominal bandwidth; peak_s: time of the arithmetic at nominal peak.

    Shapes: (n,) each.
    """

    cost: TileCost
    memory_s: Array
    peak_s: Array
    params: Params

    @cached_property
    def core_s(self) -> Array:
        """Time of the busiest core."""
        return np.asarray(self.cost.overlapped)


class Run:
    """One device and what the plans of one call share.

    is_grid: sizes come as (o, settings), or (o, 1) where all settings share them, instead of flat.
    """

    def __init__(
        self, chip: Chip, calibration: Calibration, settings: int, *, is_warm: bool, is_grid: bool = False
    ) -> None:
        self.device, self.calibration = chip.device(), calibration
        self.machine = machine_of(chip, calibration.generations)
        self.family = FAMILIES[self.machine.family]
        self.settings, self.is_warm, self.is_grid = settings, is_warm, is_grid
        self.notes: list[str] = list(self.machine.notes)

    def plan(self, operations: Sequence[Operation], size: Sizes) -> Plan:
        """The plan of operations that share a simulator (see `simulator_of`). Shapes: sizes (n,) -> (n,)."""
        return _PLANS[simulator_of(operations[0])](self, operations, size)

    def spread(self, values: Sequence[float]) -> Array:
        """One value an operation, to go with the sizes. Shapes: -> (n,), or (o, 1) of a grid."""
        return self._beside(np.array(values, dtype=np.float64))

    def _beside(self, array: Any) -> Any:
        if self.is_grid:
            return array[:, None]
        return array if self.settings == 1 else np.repeat(array, self.settings)

    def params(self, paths: Sequence[str]) -> Params:
        """Constants of each operation's path; plain numbers where all share one."""
        one = self.calibration.params(self.machine.generation, self.machine.family, tuple(paths))
        if self.settings == 1 and not self.is_grid:
            return one
        return Params(**{name: self._beside(v) if np.ndim(v) else v for name, v in vars(one).items()})

    def kinds(self, operations: Sequence[Operation]) -> list[Kind]:
        """What each product runs in; what the chip lacks goes to the notes."""
        known: dict[tuple[str, str], Kind] = {}
        for op in operations:
            key = (op.weight or "bf16", op.activation)
            if key not in known:
                chosen = self.device.arithmetic(*key)
                peak = self.family.usable_peak(self.device.peak_flop_per_s, chosen.compute)
                known[key] = Kind(chosen.compute, peak, chosen.weight, chosen.activation)
                if not chosen.is_native and chosen.note not in self.notes:
                    self.notes.append(chosen.note)
        return [known[op.weight or "bf16", op.activation] for op in operations]

    def memory_s(self, size: Sizes, params: Params, *, is_warm: bool) -> Array:
        """Time of the shared memory at its nominal bandwidth; warm bytes come from the last cache instead."""
        moved = sum(size[name] for name in MOVED)
        if is_warm and self.machine.l2_bytes:
            moved = moved * (1 - params.warm * np.clip(1 - moved / self.machine.l2_bytes, 0, 1))
        return np.asarray(moved / self.machine.memory_byte_per_s)


def simulator_of(operation: Operation) -> str:
    """Which plan an operation's kind needs."""
    if operation.kind in ("gemm", "grouped_gemm"):
        return "products"
    return "attention" if operation.kind in ("attention", "index_scores") else "streams"


def _products(run: Run, operations: Sequence[Operation], size: Sizes) -> Plan:
    kinds = run.kinds(operations)
    kernels = ["gemm" if op.kind == "gemm" else "experts" for op in operations]
    params = run.params([f"{name}.{_bits(kind)}" for name, kind in zip(kernels, kinds, strict=True)])
    work = _work(run, operations, kinds, size)
    cost = search(run.family.gemm, work, params, partial(run.family.gemm_cost, run.machine))
    return Plan(cost, run.memory_s(size, params, is_warm=run.is_warm), size["flop"] / work.peak, params)


def _attention(run: Run, operations: Sequence[Operation], size: Sizes) -> Plan:
    params = run.params([_attention_path(op) for op in operations])
    # Keys that serve as values too (MLA, V4) are loaded once; elsewhere values come beside them.
    shared = [op.kind != "attention" or bool(np.any(op.gather_bytes)) for op in operations]
    channels = size["k"] + np.where(run.spread(shared) > 0, 0.0, size["k_value"])
    scores = size["batch"] * size["m"] * size["n"]
    kinds = run.kinds(operations)
    # The backward pass walks the keys more than once: as many times as its FLOPs say.
    once = 2 * scores * (size["k"] + size["k_value"])
    walks = np.divide(size["flop"], once, out=np.ones_like(once), where=once > 0)
    key_bytes = run.spread([WEIGHT_BYTES[kind.weight] for kind in kinds])
    work = _work(
        run, operations, kinds, size,
        n=size["n"] * walks, w_bytes=key_bytes * channels / np.maximum(size["k"], 1.0),
        value_k=size["k_value"], vector_flop=size["vector_flop"] / np.maximum(scores, 1.0),
    )  # fmt: skip
    cost = search(run.family.attention, work, params, partial(run.family.attention_cost, run.machine))
    return Plan(cost, run.memory_s(size, params, is_warm=run.is_warm), size["flop"] / work.peak, params)


def _streams(run: Run, operations: Sequence[Operation], size: Sizes) -> Plan:
    """Work on vectors takes as long as its bytes, or as its arithmetic."""
    params = run.params([STREAM_PATHS[op.kind] for op in operations])
    is_topk = run.spread([op.kind == "topk" for op in operations]) > 0
    if is_topk.any():
        params = _topk_launch(run, params, is_topk, size)
    vector = size["vector_flop"] / run.machine.vector_flop_per_s
    cost = TileCost(
        tiles=1.0, steps=STREAM_STEPS, first=0.0, load=0.0, compute=0.0, store=0.0, floor=0.0,
        vector=vector / params.efficiency,
    )  # fmt: skip
    # Vectors come from the kernel before: what fits the last cache is still there.
    return Plan(cost, run.memory_s(size, params, is_warm=True), vector, params)


_PLANS = {"products": _products, "attention": _attention, "streams": _streams}


def _topk_launch(run: Run, params: Params, is_topk: npt.NDArray[np.bool_], size: Sizes) -> Params:
    """Which top-k kernel runs: none where all are chosen, one within registers, one for each length."""
    small, long = (run.params([path]) for path in ("vector", "topk_long"))
    is_small = is_topk & ((size["k"] <= SMALL_TOPK) | (size["n"] <= size["k"]))
    is_long = is_topk & ~is_small & (size["n"] > LONG_TOPK)

    def choose(name: str) -> Any:
        long_or_short = np.where(is_long, getattr(long, name), getattr(params, name))
        return np.where(is_small, getattr(small, name), long_or_short)

    return replace(params, **{name: choose(name) for name in ("launch", "launch_lower", "launch_upper")})


def _attention_path(operation: Operation) -> str:
    """Attention over chosen or compressed keys has kernels of its own; the others have years of tuning."""
    if operation.kind == "index_scores":
        return "index"
    return "attention" if operation.layer_type in SPARSE else "attention.dense"


def _work(
    run: Run, operations: Sequence[Operation], kinds: Sequence[Kind], size: Sizes, **instead: Array
) -> Work:
    """The work of operations; instead: fields that are not what the operations' shapes say."""
    fields = {
        "groups": size["batch"], "m": size["m"], "n": size["n"], "k": size["k"],
        "a_bytes": run.spread([ACTIVATION_BYTES.get(kind.activation, 1.0) for kind in kinds]),
        "w_bytes": run.spread([WEIGHT_BYTES[kind.weight] for kind in kinds]),
        "o_bytes": run.spread([WEIGHT_BYTES[op.output] for op in operations]),
        "peak": run.spread([kind.peak for kind in kinds]),
    }  # fmt: skip
    return Work(**fields | instead)


def _bits(kind: Kind) -> str:
    """The name of a product's path: bits computed in, and of the weights where those are fewer."""
    compute, weight = BITS[kind.compute], BITS[kind.weight]
    return f"{weight}x{compute}" if (weight, compute) == ("4", "8") else compute
