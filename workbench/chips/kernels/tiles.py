"""How long a tiled product takes: the search for a tiling, and the pipeline that works it off.

A kernel cuts its output into tiles. Each core takes one tile after another; within a tile it walks along k
in steps, and while one step is multiplied the next is loaded (double buffering). With r tiles on the busiest
core, each of `steps` steps and stage times t per tile,

    core time = r · max(load, feed, compute, vector, store, steps · step)
                + the other stages of the first step  +  the last store

and the memory that all cores share needs bytes / bandwidth meanwhile. Of all tilings that fit the
buffers, the quickest is taken.

Axes: c candidate tilings, n operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from workbench.chips.kernels.constants import Params

Array = npt.NDArray[np.float64]
FEW = 256  # operations of which a change of precision would cost more than it saves
STAGES = ("load", "feed", "compute", "vector", "store")
# Every family's matrix unit takes rows and columns in multiples of this; a narrow product is transposed.
GRAIN = 16.0
CHUNK = 4096  # operations × settings in one pass of the search: (c, n) arrays stay in the processor's cache


@dataclass(frozen=True)
class Tilings:
    """Candidate tiles: rows × columns of the output, and into how many parts k is cut.

    Shapes: (c, 1) each.
    """

    rows: Array
    columns: Array
    splits: Array

    @classmethod
    def of(cls, tiles: list[tuple[int, int]], splits: tuple[int, ...]) -> Tilings:
        table = np.array([(r, c, s) for r, c in tiles for s in splits], dtype=np.float64)
        return cls(table[:, :1], table[:, 1:2], table[:, 2:])

    def pick(self, chosen: npt.NDArray[np.intp]) -> Tilings:
        """The tiling chosen for each operation. Shapes: chosen (n,) -> (n,) each."""
        return Tilings(self.rows[chosen, 0], self.columns[chosen, 0], self.splits[chosen, 0])


@dataclass(frozen=True)
class Work:
    """Products to tile, as arrays of one length.

    groups products of (m, k) by (k, n) give m × n results; a_bytes, w_bytes, o_bytes: bytes of one element
    of each operand and of the result; peak: FLOP/s of the device in the arithmetic used; value_k: channels of
    the values where the product is attention, else 0; vector_flop: of one row and column (softmax).

    Shapes: (n,) each.
    """

    groups: Array
    m: Array
    n: Array
    k: Array
    a_bytes: Array
    w_bytes: Array
    o_bytes: Array
    peak: Array
    value_k: Array | float = 0.0
    vector_flop: Array | float = 0.0


@dataclass(frozen=True)
class TileCost:
    """Seconds of each stage for one tile on one core, tiles on the busiest core, steps of a tile.

    first: share of a tile that one step is; extra: seconds after the last tile (adding up a split k);
    gap: pause after each tile, as a share of its period (attention fills and drains its pipeline).
    """

    tiles: Any
    steps: Any
    first: Any
    load: Any
    compute: Any
    store: Any
    floor: Any
    feed: Any = 0.0
    vector: Any = 0.0
    extra: Any = 0.0
    gap: Any = 0.0

    @property
    def period(self) -> Any:
        """Seconds between two tiles of one core when every stage overlaps the others."""
        longest = np.maximum(np.maximum(self.load, self.compute), np.maximum(self.store, self.floor))
        return np.maximum(longest, np.maximum(self.feed, self.vector))

    @property
    def overlapped(self) -> Any:
        """Core time with double buffers: the longest stage all along, the others for the first step."""
        slowest = np.maximum(np.maximum(self.load, self.feed), np.maximum(self.compute, self.vector))
        fill = (self.load + self.feed + self.compute + self.vector - slowest) * self.first + self.store
        return self.tiles * self.period * (1.0 + self.gap) + fill + self.extra

    def pick(self, chosen: npt.NDArray[np.intp], rows: Array) -> TileCost:
        """The cost of the tiling chosen for each operation; rows: of the work, over those of whole grains.

        Partial results are as many as there are rows; all else goes by whole grains.

        Shapes: fields that broadcast to (c, n), chosen (n,) -> (n,).
        """
        operations = np.arange(chosen.size)

        def of(value: Any) -> Any:
            if np.ndim(value) < 2:
                return value
            return value[chosen, operations if value.shape[1] > 1 else 0]

        picked = {name: of(value) for name, value in vars(self).items()}
        picked["extra"] = picked["extra"] * rows
        return TileCost(**picked)

    def longest_stage(self) -> npt.NDArray[np.intp]:
        """Index into STAGES of what sets the period; one past the end where a step's least time does."""
        rows = [getattr(self, stage) for stage in STAGES]
        return np.argmax(np.stack(np.broadcast_arrays(*rows, self.floor)), axis=0)


@dataclass(frozen=True)
class Cut:
    """A product cut into tiles.

    rows, columns: of a tile that hold work, in whole grains; part: length of k of a tile; tiles: on the
    busiest core; stored_bytes: one tile's result; joined_bytes: partial results of a split k, to be added.
    """

    rows: Any
    columns: Any
    part: Any
    tiles: Any
    stored_bytes: Any
    joined_bytes: Any


def cut(tilings: Tilings, work: Work, cores: float, grain: float) -> Cut:
    """Count tiles, in waves over the cores.

    Shapes: tilings (c, 1) or (n,), work (n,) -> (c, n) or (n,).
    """
    rows = np.minimum(tilings.rows, grain * np.ceil(work.m / grain))
    columns = np.minimum(tilings.columns, grain * np.ceil(work.n / grain))
    across = np.ceil(work.n / tilings.columns) * tilings.splits
    tiles = work.groups * np.ceil(work.m / tilings.rows) * across
    is_split = tilings.splits > 1
    return Cut(
        rows=rows,
        columns=columns,
        part=work.k / tilings.splits,
        tiles=np.ceil(tiles / cores),
        stored_bytes=rows * (columns * np.where(is_split, 4.0, work.o_bytes)),
        joined_bytes=work.groups * work.m * (work.n * np.where(is_split, tilings.splits * 4.0, 0.0)),
    )


CostOf = Callable[[Tilings, Work, Params], TileCost]


def search(tilings: Tilings, work: Work, params: Params, cost: CostOf) -> TileCost:
    """What the quickest tiling of each operation costs.

    A tile is filled in whole grains, so rows are compared in whole grains too: of a sweep over batches,
    settings that differ by less share one choice.

    Shapes: tilings (c, 1), work (n,) -> (n,); of a grid, work (o, s) or (o, 1) each -> (o, s).
    """
    whole = replace(work, m=GRAIN * np.ceil(work.m / GRAIN))
    if work.m.ndim == 1 and work.m.size <= FEW:
        costs = cost(tilings, whole, params)
        return costs.pick(np.argmin(costs.overlapped, axis=0), work.m / np.maximum(whole.m, 1.0))
    shape = np.broadcast_shapes(*(np.shape(value) for value in vars(work).values()))
    chosen = np.empty(shape, dtype=np.intp)
    alike = _differ_by_rows(whole) if len(shape) == 2 and shape[1] > 1 else np.zeros(1, dtype=bool)
    if alike.any():
        rows, first, every = whole.m[alike], slice(1), slice(None)
        one, at = _different(rows)
        some = replace(_of(whole, alike, first), m=rows[:, one])
        found = _quickest(tilings, some, _of(params, alike, first), cost, (len(rows), one.size))
        chosen[alike] = found[:, at]
        if not alike.all():
            rest = (int((~alike).sum()), shape[1])
            others = _of(whole, ~alike, every), _of(params, ~alike, every)
            chosen[~alike] = _quickest(tilings, *others, cost, rest)
    else:
        chosen[...] = _quickest(tilings, whole, params, cost, shape)
    return cost(tilings.pick(chosen), work, params)


def _differ_by_rows(work: Work) -> npt.NDArray[np.bool_]:
    """Operations of a grid whose settings differ in nothing but m. Shapes: (o, s) or (o, 1) each -> (o,)."""
    alike = np.ones(len(work.m), dtype=bool)
    for name, value in vars(work).items():
        if name != "m" and isinstance(value, np.ndarray) and value.shape[1] > 1:
            alike &= (value == value[:, :1]).all(axis=1)
    return alike & (work.m.shape[1] > 1)


def _different(rows: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """One of each group of equal columns, and the group of each. Shapes: (o, s) -> (groups,), (s,)."""
    codes = np.zeros(rows.shape[1])
    # Most operations have as many rows as there are tokens.
    for row in {row.tobytes(): row for row in rows}.values():
        codes = np.unique(codes * (row.max() + 1) + row, return_inverse=True)[1].astype(np.float64)
    _, one, at = np.unique(codes, return_index=True, return_inverse=True)
    return one, at


_Arrays = TypeVar("_Arrays", Work, Params)


def _of(arrays: _Arrays, some: npt.NDArray[np.bool_], settings: slice) -> _Arrays:
    """Some operations and settings of a grid."""
    cut = {k: v[some, settings] for k, v in vars(arrays).items() if isinstance(v, np.ndarray)}
    return replace(arrays, **cut)


def _quickest(
    tilings: Tilings, work: Work, params: Params, cost: CostOf, shape: tuple[int, ...]
) -> npt.NDArray[np.intp]:
    """Which candidate is the quickest. Many are compared in single precision, which takes half the time."""
    # Candidates lie on an axis of their own, before those of the work.
    columns = (len(tilings.rows), *[1] * len(shape))
    chosen = np.empty(shape, dtype=np.intp)
    single = Tilings(*(value.astype(np.float32).reshape(columns) for value in vars(tilings).values()))
    step = max(CHUNK // (chosen.size // max(shape[-1], 1)), 1) if chosen.size else 1
    for start in range(0, shape[-1], step):
        part = slice(start, start + step)
        some_work = Work(**_single(work, part))
        some_params = Params(**_single(params, part))
        chosen[..., part] = np.argmin(cost(single, some_work, some_params).overlapped, axis=0)
    return chosen


def _single(arrays: Work | Params, part: slice) -> dict[str, Any]:
    """Arrays cut along their last axis and in single precision; numbers as they are."""
    return {
        name: (value[..., part] if value.shape[-1] > 1 else value).astype(np.float32)
        if isinstance(value, np.ndarray)
        else value
        for name, value in vars(arrays).items()
    }
