"""Explorers of training at scale: a pipeline played out, and a cluster on which things break."""

from __future__ import annotations

from typing import Any

import ipywidgets
import plotly.graph_objects as go

from workbench.chips.runs.faults import Faults, best_interval, goodput, slowest, useful_share
from workbench.chips.runs.orders import Schedule
from workbench.chips.runs.pipeline import PartTime, Slot, Timeline, play
from workbench.chips.runs.sources import load_faults
from workbench.plots.runs import pipelines_figure, time_figure
from workbench.units import HOUR_S
from workbench.widgets.explorer import Explorer

SIZES = (64, 256, 1024, 4096, 16384, 65536, 262144)


def pipeline_panel(
    schedule: Schedule, stages: int, micro_batches: int, chunks: int = 1, together: float = 1.0
) -> dict[str, Any]:
    """One schedule with a forward pass of 1 and a backward pass of 2, half of it the weights'.

    -> {"head", "slots"} for `pipelines_figure`.

    Raises:
        ValueError: numbers that do not fit the schedule, as `play`.
    """
    chunks = chunks if schedule == "interleaved" else 1
    part = PartTime(1.0, 2.0, 1.0, together if schedule == "dualpipe" else 1.0).cut(chunks)
    timeline = play(schedule, stages, micro_batches, [part], chunks=chunks)
    return {"head": _head(schedule, timeline), "slots": [_slot(slot) for slot in timeline.slots]}


def pipeline_explorer(picture: str | None = None) -> Explorer:
    """Schedule × ranks × micro-batches × chunks × overlap: who works when."""
    select, slider = ipywidgets.Dropdown, ipywidgets.SelectionSlider

    def draw(stages: int, micro_batches: int, chunks: int, together: float) -> go.Figure:
        ways: tuple[Schedule, ...] = ("1f1b", "interleaved", "dualpipe")
        panels = [pipeline_panel(way, stages, micro_batches, chunks, together) for way in ways]
        return pipelines_figure(panels, f"{micro_batches} micro-batches through {stages} ranks")

    controls = {
        "stages": select(options=[2, 4, 8], value=4, description="ranks"),
        "micro_batches": slider(options=[16, 24, 32], description="micro-batches"),
        "chunks": slider(options=[2, 3, 4], value=2, description="chunks a rank"),
        "together": slider(options=[0.7, 0.8, 0.9, 1.0], value=0.9, description="pair over sum"),
    }
    return Explorer(draw, controls, picture=picture, title="Three pipeline schedules")


def time_row(faults: Faults, chips: int, interval_s: float | None = None) -> dict[str, float]:
    """Shares of chip time by the closed forms, in order of the causes; they add up to one.

    interval_s: seconds of work between checkpoints; None: the best.
    """
    interval = best_interval(faults, chips) if interval_s is None else interval_s
    without_restart = faults.replace(restart_s=0.0)
    # Each cause is what its removal gives back, one after the other.
    calm = 1 / slowest(faults.spread, chips)
    saving = interval / (interval + faults.save_s)
    unlucky = float(useful_share(without_restart.replace(flap_rate=0.0), chips, interval))
    restarted = float(useful_share(faults.replace(flap_rate=0.0), chips, interval))
    work = goodput(faults, chips, interval)
    return {
        "chips": chips,
        "work": work,
        "waiting for the slowest": 1 - calm,
        "saving": calm * (1 - saving),
        "work lost": calm * (saving - unlucky),
        "restarting": calm * (unlucky - restarted),
        "flapping links": calm * restarted - work,
    }


def time_explorer(picture: str | None = None) -> Explorer:
    """Days between faults of a chip × restart × saving × interval × spread: where chip time goes."""
    slider = ipywidgets.SelectionSlider
    taken = load_faults("ascend-910c")

    def draw(years: float, restart: float, save: float, interval: str, spread: float) -> go.Figure:
        faults = taken.replace(
            fault_rate=1 / (years * 365 * 24 * HOUR_S), restart_s=restart, save_s=save, spread=spread
        )
        work = None if interval == "best" else float(interval) * 60
        rows = [time_row(faults, chips, work) for chips in SIZES]
        return time_figure(rows, f"A chip breaks the job every {years:g} years, restart {restart:,.0f} s")

    controls = {
        "years": slider(options=[1, 2, 5, 10, 25], value=5, description="years a fault"),
        "restart": slider(options=[30, 120, 600, 1800, 7200], value=600, description="restart (s)"),
        "save": slider(options=[1, 10, 60, 300], value=10, description="saving (s)"),
        "interval": slider(options=["best", "5", "15", "60", "240"], value="best", description="every (min)"),
        "spread": slider(options=[0.0, 0.005, 0.015, 0.04], value=0.015, description="spread of ranks"),
    }
    return Explorer(draw, controls, picture=picture, title="Where chip time goes")


def _slot(slot: Slot) -> dict[str, Any]:
    kind = slot.work[0].kind if len(slot.work) == 1 else "side by side"
    text = " and ".join(f"{w.kind} of micro-batch {w.micro_batch + 1}" for w in slot.work)
    return {
        "rank": slot.rank + 1,
        "start_s": slot.start_s,
        "end_s": slot.end_s,
        "kind": kind,
        "text": text,
    }


def _head(schedule: Schedule, timeline: Timeline) -> str:
    names = {"1f1b": "1F1B", "interleaved": "Interleaved", "dualpipe": "DualPipe"}
    return (
        f"<b>{names[schedule]}</b>: {timeline.seconds:.1f} in all, {timeline.bubble_share:.0%} idle, "
        f"up to {max(timeline.in_flight):g} micro-batches held"
    )
