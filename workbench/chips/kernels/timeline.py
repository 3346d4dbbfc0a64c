"""What each engine of the busiest core does, and who waits for whom: rows to draw.

Between two stages lie two buffers. A stage may begin a piece of work when the stage before it has finished
that piece, when it has finished its own last piece, and when one of its two output buffers is free again:

    begin(stage, i) = max( end(stage before, i),  end(stage, i - 1),  end(stage after, i - 2) )

The store begins when all pieces of a tile are done, and the sums of two tiles fit beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.chips.catalog import Chip
from workbench.chips.kernels.constants import Calibration, load_calibration
from workbench.chips.kernels.plans import FIELDS, Plan, Run, simulator_of
from workbench.chips.kernels.simulate import LIMITS, bounds, join, lay_out
from workbench.chips.kernels.tiles import STAGES
from workbench.chips.operations import Operation

BUFFERS = 2
PIECES = 8  # steps of one tile are drawn in so many pieces


@dataclass(frozen=True)
class Span:
    """One engine at work on one piece of a tile. waits_for: the engine whose end let it begin."""

    engine: str
    stage: str
    tile: int
    piece: int
    start_s: float
    end_s: float
    waits_for: str


@dataclass(frozen=True)
class Timeline:
    """The first tiles of the busiest core. tiles: how many it has in all; expected_s: the whole operation."""

    spans: tuple[Span, ...]
    tiles: int
    tiles_shown: int
    expected_s: float
    limit: str
    notes: tuple[str, ...]


def timeline(
    operation: Operation, chip: Chip, *, tiles: int = 4, calibration: Calibration | None = None
) -> Timeline:
    """The pipeline of one operation on the busiest core of one device, launch first.

    A load lasts as long as the core's own path or its share of the memory, whichever is longer; where the two
    get in each other's way, every stage is stretched by as much as the expected time says. With all tiles
    shown, the last span ends at the expected time but for a few per cent: steps are gathered into pieces.

    Raises:
        ValueError: sizes that are arrays, or no tile to show.
    """
    row = tuple(getattr(operation, name) for name in FIELDS)
    if any(np.ndim(value) for value in row) or tiles < 1:
        raise ValueError(
            f"timeline: got {operation.name!r} with arrays, or tiles={tiles}; it draws one setting and at "
            f"least one tile; give an operation with plain numbers"
        )
    calibration = calibration or load_calibration()
    run = Run(chip, calibration, 1, is_warm=False)
    sizes, _ = lay_out([row])
    plan = run.plan([operation], sizes)
    _, expected, _, limit = bounds(plan, run.machine.spread, np.ones(1))[:, 0]
    launch = float(np.ravel(plan.params.launch)[0])
    count = int(np.ravel(plan.cost.tiles)[0])
    pieces = min(int(np.ravel(plan.cost.steps)[0]), PIECES)
    spans = [Span("host", "launch", 0, 0, 0.0, launch, "")]
    if expected > launch:
        durations, gap = _durations(plan, count, pieces)
        engines, order = dict(run.family.engines), STAGES
        if simulator_of(operation) == "attention":
            # Scores cross over from the matrix to the vector units: on 910B and 910C through L2.
            engines["feed"], order = "L2 hand-over", ("load", "compute", "feed", "vector", "store")
        chain = [name for name in order if name in durations and name != "store"]
        spans += _schedule(durations, chain, gap, min(count, tiles), pieces, launch, engines)
    return Timeline(
        tuple(spans), count, min(count, tiles), float(expected), LIMITS[int(limit)], tuple(run.notes)
    )


def _durations(plan: Plan, tiles: int, pieces: int) -> tuple[dict[str, float], float]:
    """Seconds of one piece in each stage (of one tile in "store"), and of the pause after a tile."""
    cost = plan.cost
    stages = {name: float(np.ravel(getattr(cost, name))[0]) for name in STAGES}
    core, memory = np.ravel(cost.overlapped), np.ravel(plan.memory_s / plan.params.memory)
    joined = float(join(core, memory, plan.params.overlap)[0])
    gap = float(np.ravel(cost.period * cost.gap)[0])
    stages["load"] = max(stages["load"], float(memory[0]) / tiles - gap)
    # Steps that last for their least time: the multiplication waits in between.
    floor = float(np.ravel(cost.floor)[0])
    busiest = "compute" if stages["compute"] else "vector"
    stages[busiest] = max(stages[busiest], floor)
    stretch = joined / max(float(core[0]), float(memory[0]))
    piece = {name: stretch * s / (1 if name == "store" else pieces) for name, s in stages.items() if s > 0}
    # Walking the pieces through the stages is itself part of filling and draining.
    walked = [s for name, s in piece.items() if name != "store"]
    return piece, max(stretch * gap - (sum(walked) - max(walked)), 1e-12) if gap else 0.0


def _schedule(
    durations: dict[str, float],
    chain: list[str],
    gap: float,
    tiles: int,
    pieces: int,
    start: float,
    engines: dict[str, str],
) -> list[Span]:
    ends: dict[str, list[float]] = {name: [] for name in (*chain, "store")}
    spans: list[Span] = []

    def run(stage: str, tile: int, piece: int, waits: list[tuple[float, str]]) -> None:
        begin, cause = max(waits)
        end = begin + durations[stage]
        ends[stage].append(end)
        spans.append(Span(engines[stage], stage, tile, piece, begin, end, cause))

    for tile in range(tiles):
        # Where a unit drains before the next begins (attention), nothing of the next is loaded earlier.
        free = start if not tile or not gap else ends[chain[-1]][-1] + gap
        for piece in range(pieces):
            i = tile * pieces + piece
            for at, stage in enumerate(chain):
                waits = [(free, "fill and drain" if tile and gap else "launch")]
                if at:
                    waits.append((ends[chain[at - 1]][i], engines[chain[at - 1]]))
                if i:
                    waits.append((ends[stage][i - 1], engines[stage]))
                if at + 1 < len(chain) and i >= BUFFERS:
                    waits.append((ends[chain[at + 1]][i - BUFFERS], engines[chain[at + 1]]))
                if at + 1 == len(chain) and "store" in durations and not piece and tile >= BUFFERS:
                    waits.append((ends["store"][tile - BUFFERS], engines["store"]))
                run(stage, tile, piece, waits)
        if "store" in durations:
            done = (ends[chain[-1]][-1], engines[chain[-1]])
            before = [(ends["store"][-1], engines["store"])] if tile else []
            run("store", tile, 0, [done, *before])
    return spans
