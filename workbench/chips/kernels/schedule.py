"""A kernel's plan laid open: each resource's own time, the tilings tried, and the walk over tiles.

The walk is the order in which cores take tiles, so that the same schedule can be timed here and executed
number by number in `workbench.quant.arithmetic.schedule`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workbench.chips.catalog import Chip
from workbench.chips.kernels.constants import Calibration, load_calibration
from workbench.chips.kernels.plans import FIELDS, Plan, Run, simulator_of
from workbench.chips.kernels.simulate import LIMITS, bounds, lay_out
from workbench.chips.kernels.tiles import STAGES, Tilings
from workbench.chips.operations import Operation


@dataclass(frozen=True)
class Resources:
    """Seconds that each resource would need for an operation if it were alone.

    stages: of the busiest core, all its tiles; memory_s: of the shared memory at the bandwidth that long
    streams reach; peak_s and nominal_memory_s: at the published peak and bandwidth, whose longer one is the
    roofline; engines: what the family calls the unit of each stage.
    """

    launch_s: float
    memory_s: float
    stages: Mapping[str, float]
    peak_s: float
    nominal_memory_s: float
    expected_s: float
    limit: str
    engines: Mapping[str, str]

    @property
    def roof_s(self) -> float:
        """What a roofline says: the published peak or the published bandwidth, whichever takes longer."""
        return max(self.peak_s, self.nominal_memory_s)


@dataclass(frozen=True)
class Visit:
    """One tile on one core: which rows and columns of the result, and which part of k."""

    core: int
    wave: int
    group: int
    rows: slice
    columns: slice
    part: int


@dataclass(frozen=True)
class Schedule:
    """How a product, or attention, is cut and who takes which tile.

    rows, columns: of a tile; parts: into how many k is cut; steps: of one tile along its part of k;
    waves: tiles of the busiest core; core_s: its time; expected_s: of the whole operation. Attention sums
    over keys: m counts query rows, n channels of a value (a tile holds all of them), k keys.
    """

    groups: int
    m: int
    n: int
    k: int
    rows: int
    columns: int
    parts: int
    cores: int
    steps: int
    core_s: float
    expected_s: float

    @property
    def tiles(self) -> int:
        """Tiles of the whole product."""
        return self.groups * -(-self.m // self.rows) * -(-self.n // self.columns) * self.parts

    @property
    def waves(self) -> int:
        return -(-self.tiles // self.cores)

    @property
    def full(self) -> float:
        """Share of the waves' places that hold a tile: 1 where the last wave is full."""
        return self.tiles / (self.waves * self.cores)

    def visits(self) -> Iterator[Visit]:
        """Tiles in the order in which they are handed out, one core after the other."""
        cuts = itertools.product(
            range(self.groups), range(0, self.m, self.rows), range(0, self.n, self.columns), range(self.parts)
        )
        for i, (group, row, column, part) in enumerate(cuts):
            rows = slice(row, min(row + self.rows, self.m))
            columns = slice(column, min(column + self.columns, self.n))
            yield Visit(i % self.cores, i // self.cores, group, rows, columns, part)


def resources(operation: Operation, chip: Chip, calibration: Calibration | None = None) -> Resources:
    """What each resource of one device would need for an operation by itself.

    Raises:
        ValueError: sizes that are arrays, or as `kernel_time`.
    """
    _check_single("resources", operation)
    run, plan = _plan(operation, chip, calibration)
    cost, one = plan.cost, bounds(plan, run.machine.spread, np.ones(1))[:, 0]
    tiles = float(np.ravel(cost.tiles)[0])
    stages = {stage: tiles * float(np.ravel(getattr(cost, stage))[0]) for stage in STAGES}
    return Resources(
        launch_s=float(np.ravel(plan.params.launch)[0]),
        memory_s=float(np.ravel(plan.memory_s / plan.params.memory)[0]),
        stages={stage: s for stage, s in stages.items() if s > 0},
        peak_s=float(np.ravel(plan.peak_s)[0]),
        nominal_memory_s=float(np.ravel(plan.memory_s)[0]),
        expected_s=float(one[1]),
        limit=LIMITS[int(one[3])],
        engines=dict(run.family.engines),
    )


def tried(operation: Operation, chip: Chip, calibration: Calibration | None = None) -> list[Schedule]:
    """The schedule of every tiling that the search compares, in its order.

    Raises:
        ValueError: work that is not tiled, sizes that are arrays, or as `kernel_time`.
    """
    _check_single("tried", operation)
    is_attention = simulator_of(operation) == "attention"
    n, k = (operation.k_value, operation.n) if is_attention else (operation.n, operation.k)
    return [
        Schedule(
            groups=int(np.ceil(operation.batch)), m=int(np.ceil(operation.m)), n=int(n), k=int(np.ceil(k)),
            rows=rows, columns=max(int(n), 1) if is_attention else columns, parts=parts, cores=cores,
            steps=int(np.ravel(plan.cost.steps)[0]), core_s=float(np.ravel(plan.cost.overlapped)[0]),
            expected_s=float(expected[0]),
        )
        for (rows, columns, parts), cores, plan, expected in _one_by_one(operation, chip, calibration)
    ]  # fmt: skip


def tiling_times(
    operation: Operation, chip: Chip, calibration: Calibration | None = None
) -> dict[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Expected seconds under each tiling (rows, columns, parts of k), as if the search had no choice.

    Shapes: sizes that broadcast to s -> (s,) flat, for each tiling.
    Raises:
        ValueError: work that is not tiled, or as `kernel_time`.
    """
    return {tiling: expected for tiling, _, _, expected in _one_by_one(operation, chip, calibration)}


def schedule(operation: Operation, chip: Chip, calibration: Calibration | None = None) -> Schedule:
    """The schedule that the simulator chooses: the quickest of those tried. Raises: as `tried`."""
    return min(tried(operation, chip, calibration), key=lambda s: s.core_s)


def _one_by_one(
    operation: Operation, chip: Chip, calibration: Calibration | None
) -> Iterator[tuple[tuple[int, int, int], int, Plan, npt.NDArray[np.float64]]]:
    """Each tiling alone: the tiling, the number of cores, its plan, its expected seconds."""
    kind = simulator_of(operation)
    if kind == "streams" or operation.kind == "index_scores":
        raise ValueError(
            f"tried: {operation.name!r} is of kind {operation.kind!r}; only products and attention are cut "
            f"into tiles; give a gemm, a grouped_gemm or an attention"
        )
    sizes, _ = lay_out([tuple(getattr(operation, name) for name in FIELDS)])
    run = Run(chip, calibration or load_calibration(), sizes["m"].size, is_warm=False)
    family = run.family
    tilings = family.gemm if kind == "products" else family.attention
    every = np.concatenate([tilings.rows, tilings.columns, tilings.splits], axis=1)
    for rows, columns, parts in every.astype(int).tolist():
        # A family with this one tiling: the search has no choice.
        only = Tilings.of([(rows, columns)], (parts,))
        run.family = replace(family, gemm=only) if kind == "products" else replace(family, attention=only)
        plan = run.plan([operation], sizes)
        expected = bounds(plan, run.machine.spread, np.ones(sizes["m"].size))[1]
        yield (rows, columns, parts), int(run.machine.cores), plan, expected


def _plan(operation: Operation, chip: Chip, calibration: Calibration | None) -> tuple[Run, Plan]:
    run = Run(chip, calibration or load_calibration(), 1, is_warm=False)
    sizes, _ = lay_out([tuple(getattr(operation, name) for name in FIELDS)])
    return run, run.plan([operation], sizes)


def _check_single(function: str, operation: Operation) -> None:
    if any(np.ndim(getattr(operation, name)) for name in FIELDS):
        raise ValueError(
            f"{function}: {operation.name!r} has sizes that are arrays; it lays open one setting; give an "
            f"operation with plain numbers"
        )
