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

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from workbench.chips.catalog import Chip
from workbench.chips.kernels.constants import Calibration, load_calibration
from workbench.chips.kernels.plans import FIELDS, SMALL_TOPK, Plan, Run, Sizes, simulator_of
from workbench.chips.kernels.tiles import STAGES, Array
from workbench.chips.operations import Operation

LIMITS = (*STAGES, "step", "memory", "launch")
TINY_S = 1e-30
_SIZES = attrgetter(*FIELDS)
_LAUNCHED_AS = attrgetter("group", "layer_type", "part", "stage")


@dataclass(frozen=True)
class KernelTime:
    """Seconds of operations (each one of its `count`), in the shape of their sizes.

    From kernel_times, arrays have a leading axis of operations. notes: what was assumed or converted;
    launch_s: the part of the expected time that is launch, 0 where an operation rides along; find_limits
    gives `limits`, which a sweep has no need of.
    """

    lower_s: Any
    expected_s: Any
    upper_s: Any
    find_limits: Callable[[], Any]
    notes: tuple[str, ...] = ()
    launch_s: Any = 0.0

    @cached_property
    def limits(self) -> Any:
        """Index into LIMITS of what sets the expected time."""
        return self.find_limits()

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
        row.lower_s[0], row.expected_s[0], row.upper_s[0], lambda: row.limits[0], row.notes, row.launch_s[0]
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
    table = _flat(rows)
    is_sweep = table is None
    # Layers of one kind repeat operations of another; looking for them pays where sizes are arrays.
    every = list(range(len(operations)))
    distinct, inverse = _distinct(operations, rows, launched) if is_sweep else (every, every)
    # Operations of one simulator lie side by side.
    simulators = [simulator_of(operations[i]) for i in distinct]
    order = sorted(range(len(distinct)), key=simulators.__getitem__)
    place = np.argsort(order)[inverse]
    distinct = [distinct[i] for i in order]
    some = [operations[i] for i in distinct]
    shape = _shape(rows) if is_sweep else ()
    settings = math.prod(shape)
    run = Run(chip, calibration or load_calibration(), settings, is_warm=is_warm, is_grid=is_sweep)
    if table is None:
        sizes = _grid([rows[i] for i in distinct], shape)
    else:
        sizes = dict(zip(FIELDS, table[:, order], strict=True))
    _check(sizes, some)
    starts = run.spread([launched[i] for i in distinct])

    results, plans, end = np.empty((4, len(some), settings)), [], 0
    for count in Counter(simulators[i] for i in order).values():
        at, end = slice(end, end + count), end + count
        plan = run.plan(some[at], {name: values[at] for name, values in sizes.items()})
        times = seconds_of(plan, run.machine.spread, starts[at])
        for row, seconds in zip(results, (*times, plan.params.launch * starts[at]), strict=True):
            row[at] = seconds.reshape(count, -1)
        plans.append((at, plan))

    def find_limits() -> Any:
        found = np.empty((len(some), settings), dtype=np.intp)
        for at, plan in plans:
            found[at] = limits_of(plan, starts[at]).reshape(at.stop - at.start, -1)
        return found[place].reshape(len(operations), *shape)

    lower, expected, upper, launch = results[:, place].reshape(4, len(operations), *shape)
    return KernelTime(lower, expected, upper, find_limits, tuple(run.notes), launch)


def seconds_of(plan: Plan, spread: float, launched: Array) -> tuple[Array, Array, Array]:
    """Join a plan's parts to times. launched: 1 where a kernel begins, 0 where it rides along.

    Shapes: (n,) each -> (n,) each: lower, expected, upper.
    """
    params, core, memory = plan.params, plan.core_s, plan.memory_s / plan.params.memory
    expected = params.launch * launched + join(core, memory, params.overlap)

    scatter = np.exp(params.scatter)
    good = np.maximum(
        core * params.efficiency / params.efficiency_upper, memory * params.memory / params.memory_upper
    )
    at_best = np.maximum(plan.peak_s, plan.memory_s)
    lower = np.maximum((params.launch_lower * launched + good) / scatter, at_best) / (1 + spread)
    bad = core * params.efficiency / params.efficiency_lower + memory * params.memory / params.memory_lower
    upper = (params.launch_upper * launched + bad) * scatter / (1 - spread)
    return lower, expected, upper


def limits_of(plan: Plan, launched: Array) -> Any:
    """Index into LIMITS of what sets a plan's expected times. Shapes: (n,) each -> (n,)."""
    params, core, memory = plan.params, plan.core_s, plan.memory_s / plan.params.memory
    limits = np.where(memory > core, LIMITS.index("memory"), plan.cost.longest_stage())
    is_launch = params.launch * launched > join(core, memory, params.overlap)
    return np.where(is_launch, LIMITS.index("launch"), limits)


def bounds(plan: Plan, spread: float, launched: Array) -> Array:
    """Times of a plan, and what limits them. Shapes: (n,) each -> (4, n): lower, expected, upper, limits."""
    return np.stack([*seconds_of(plan, spread, launched), limits_of(plan, launched)])


def join(core: Array, memory: Array, overlap: Any) -> Array:
    """(core^p + memory^p)^(1/p), without overflow. Shapes: (n,) each -> (n,)."""
    longer, shorter = np.maximum(core, memory), np.minimum(core, memory)
    ratio = shorter / np.maximum(longer, TINY_S)
    return np.asarray(longer * (1 + ratio**overlap) ** (1 / overlap))


def lay_out(rows: Sequence[tuple[Any, ...]]) -> tuple[Sizes, tuple[int, ...]]:
    """The sizes of all operations side by side, flat; and the shape of one. rows: FIELDS of each."""
    shape = _shape(rows)
    table = np.empty((len(FIELDS), len(rows), *shape))
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            table[j, i] = value
    return dict(zip(FIELDS, table.reshape(len(FIELDS), -1), strict=True)), shape


def _flat(rows: Sequence[tuple[Any, ...]]) -> Array | None:
    """FIELDS of operations whose sizes are plain numbers, None where some are arrays. Shapes: -> (f, o)."""
    try:
        table = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * len(FIELDS))
    except ValueError:  # an array among the numbers
        return None
    return table.reshape(len(rows), -1).T


def _grid(rows: Sequence[tuple[Any, ...]], shape: tuple[int, ...]) -> Sizes:
    """FIELDS of operations over settings. Shapes: -> (o, settings) each, (o, 1) where none changes."""
    found = {}
    for name, values in zip(FIELDS, zip(*rows, strict=True), strict=True):
        if any(np.ndim(value) for value in values):
            table = np.empty((len(values), *shape))
            for row, value in zip(table, values, strict=True):
                row[...] = value
            found[name] = table.reshape(len(values), -1)
        else:
            found[name] = np.array(values, dtype=np.float64)[:, None]
    return found


def _shape(rows: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    """The shape of all sizes together; plain numbers, most of them, have none."""
    return np.broadcast_shapes(*{np.shape(v) for row in rows for v in row if not isinstance(v, float | int)})


def _gathers(operation: Operation) -> bool:
    some = operation.gather_bytes
    return bool(some if isinstance(some, float | int) else np.any(some))


def _check(sizes: Sizes, operations: Sequence[Operation]) -> None:
    for name, values in sizes.items():
        if not values.min() >= 0:  # a NaN is not
            row = int(np.argwhere(~(values >= 0))[0][0])
            wrong = operations[row]
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
            op.kind, op.weight, op.activation, op.output, starts, _gathers(op),
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
    keys = [_LAUNCHED_AS(op) for op in operations]
    return [
        i == 0 or keys[i] != keys[i - 1] or (op.kind == "topk" and bool(np.all(op.k > SMALL_TOPK)))
        for i, op in enumerate(operations)
    ]
