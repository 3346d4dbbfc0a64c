"""Operations on a chip as seconds: expected, with a lower and an upper bound, and what limits them.

Operations of one kind go through the simulator of the chip's family together: their sizes, numbers or
arrays, are laid side by side, so that a whole model is a handful of numpy passes and a sweep no loop.

    expected = launch + (core^p + memory^p)^(1/p)

joins the time of the busiest core with that of the shared memory; p, the overlap, is calibrated. The lower
bound hides the shorter under the longer and takes every constant at its good end; the upper adds them at
the bad end. Both are widened by the scatter that the calibration left unexplained, but no lower bound is
faster than the published peak and bandwidth.

Axes: o operations, n = o · settings, laid flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from workbench.chips.catalog import Chip
from workbench.chips.kernels.constants import Calibration, load_calibration
from workbench.chips.kernels.plans import FIELDS, SMALL_TOPK, Plan, Run, Sizes, simulator_of
from workbench.chips.kernels.tiles import STAGES, Array
from workbench.chips.operations import Operation

LIMITS = (*STAGES, "step", "memory", "launch")
_SIZES = attrgetter(*FIELDS)


@dataclass(frozen=True)
class KernelTime:
    """Seconds of operations (each one of its `count`), in the shape of their sizes.

    From kernel_times, arrays have a leading axis of operations. limits: index into LIMITS of what sets the
    expected time; notes: what was assumed or converted; launch_s: the part of the expected time that is
    launch, 0 where an operation rides along.
    """

    lower_s: Any
    expected_s: Any
    upper_s: Any
    limits: Any
    notes: tuple[str, ...] = ()
    launch_s: Any = 0.0

    @property
    def limit(self) -> Any:
        """What sets the expected time, in words."""
        return np.array(LIMITS)[self.limits]


def kernel_time(
    operation: Operation, chip: Chip, *, calibration: Calibration | None = None, is_warm: bool = False
) -> KernelTime:
    """Seconds of one operation on one device of a chip. Arguments as for kernel_times.

    Shapes: any sizes that broadcast -> that shape.
    Raises:
        ValueError: as kernel_times.
    """
    row = kernel_times([operation], chip, calibration=calibration, is_warm=is_warm)
    return KernelTime(
        row.lower_s[0], row.expected_s[0], row.upper_s[0], row.limits[0], row.notes, row.launch_s[0]
    )


def kernel_times(
    operations: Sequence[Operation],
    chip: Chip,
    *,
    calibration: Calibration | None = None,
    is_warm: bool = False,
    is_fused: bool = True,
) -> KernelTime:
    """Seconds of each operation on one device of a chip.

    is_warm: operands may still lie in the last cache from the call before, as in a benchmark that repeats
    one kernel. is_fused: of neighbours that share a `group`, only the first is launched.

    Shapes: sizes that broadcast to s -> (o, *s).
    Raises:
        ValueError: no operations, a negative or unknown size, or a chip without bandwidth or peak.
    """
    if not operations:
        raise ValueError("kernel_times: got no operations; a time needs at least one; give a list of them")
    launched = _launches(operations) if is_fused else [True] * len(operations)
    rows = [_SIZES(op) for op in operations]
    is_sweep = np.ndarray in set().union(*(map(type, row) for row in rows))
    # Layers of one kind repeat operations of another; looking for them pays where sizes are arrays.
    every = list(range(len(operations)))
    distinct, inverse = _distinct(operations, rows, launched) if is_sweep else (every, every)
    some = [operations[i] for i in distinct]
    sizes, shape = lay_out([rows[i] for i in distinct])
    _check(sizes, some)
    settings = sizes["m"].size // len(some)
    run = Run(chip, calibration or load_calibration(), settings, is_warm=is_warm)

    results = np.empty((5, len(some), settings))
    for simulator in ("products", "attention", "streams"):
        at = [i for i, op in enumerate(some) if simulator_of(op) == simulator]
        if at:
            part = {name: values.reshape(len(some), -1)[at].ravel() for name, values in sizes.items()}
            plan = run.plan([some[i] for i in at], part)
            starts = run.spread([launched[distinct[i]] for i in at])
            results[:4, at] = bounds(plan, run.machine.spread, starts).reshape(4, len(at), settings)
            results[4, at] = np.broadcast_to(plan.params.launch * starts, starts.shape).reshape(len(at), -1)
    lower, expected, upper, limits, launch = results[:, inverse].reshape(5, len(operations), *shape)
    return KernelTime(lower, expected, upper, limits.astype(np.intp), tuple(run.notes), launch)


def bounds(plan: Plan, spread: float, launched: Array) -> Array:
    """Join a plan's parts to times. launched: 1 where a kernel begins, 0 where it rides along.

    Shapes: (n,) each -> (4, n): lower, expected, upper, limits.
    """
    params, core, memory = plan.params, plan.cost.overlapped, plan.memory_s / plan.params.memory
    joined = join(core, memory, params.overlap)
    expected = params.launch * launched + joined

    scatter = np.exp(params.scatter)
    good = np.maximum(
        core * params.efficiency / params.efficiency_upper, memory * params.memory / params.memory_upper
    )
    at_best = np.maximum(plan.peak_s, plan.memory_s)
    lower = np.maximum((params.launch_lower * launched + good) / scatter, at_best) / (1 + spread)
    bad = core * params.efficiency / params.efficiency_lower + memory * params.memory / params.memory_lower
    upper = (params.launch_upper * launched + bad) * scatter / (1 - spread)

    limits = np.where(memory > core, LIMITS.index("memory"), plan.cost.longest_stage())
    limits = np.where(params.launch * launched > joined, LIMITS.index("launch"), limits)
    return np.stack([lower, expected, upper, limits])


def join(core: Array, memory: Array, overlap: Any) -> Array:
    """(core^p + memory^p)^(1/p), without overflow. Shapes: (n,) each -> (n,)."""
    longer, shorter = np.maximum(core, memory), np.minimum(core, memory)
    ratio = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    return np.asarray(longer * (1 + ratio**overlap) ** (1 / overlap))


def lay_out(rows: Sequence[tuple[Any, ...]]) -> tuple[Sizes, tuple[int, ...]]:
    """The sizes of all operations side by side, flat; and the shape of one. rows: FIELDS of each."""
    shape = np.broadcast_shapes(*{np.shape(v) for row in rows for v in row if type(v) is np.ndarray})
    table = np.empty((len(FIELDS), len(rows), *shape))
    if shape == ():
        table[...] = np.array(rows, dtype=np.float64).T
    else:
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                table[j, i] = value
    return dict(zip(FIELDS, table.reshape(len(FIELDS), -1), strict=True)), shape


def _check(sizes: Sizes, operations: Sequence[Operation]) -> None:
    for name, values in sizes.items():
        if not values.min() >= 0:  # a NaN is not
            wrong = operations[int(np.argmin(values >= 0)) // (values.size // len(operations))]
            raise ValueError(
                f"kernel_times: {name} of {wrong.name!r} is {getattr(wrong, name)}; sizes must be numbers "
                f"from 0 on; mend the operation"
            )


def _distinct(
    operations: Sequence[Operation], rows: Sequence[tuple[Any, ...]], launched: Sequence[bool]
) -> tuple[list[int], list[int]]:
    """One operation of each that differ in anything that costs time, and which of them stands for each."""
    first: dict[Any, int] = {}
    at: list[int] = []
    inverse: list[int] = []
    for i, (op, row, starts) in enumerate(zip(operations, rows, launched, strict=True)):
        key = (
            op.kind, op.weight, op.activation, op.output, starts, bool(np.any(op.gather_bytes)),
            *[v.tobytes() if isinstance(v, np.ndarray) else v for v in row],
        )  # fmt: skip
        if key not in first:
            first[key] = len(at)
            at.append(i)
        inverse.append(first[key])
    return at, inverse


def _launches(operations: Sequence[Operation]) -> list[bool]:
    """True where a kernel begins, False where an operation rides along with its neighbour.

    A choice among long rows of scores has a kernel of its own everywhere.
    """
    keys = [(op.group, op.layer_type, op.part, op.stage) for op in operations]
    return [
        i == 0 or keys[i] != keys[i - 1] or (op.kind == "topk" and bool(np.all(op.k > SMALL_TOPK)))
        for i, op in enumerate(operations)
    ]
