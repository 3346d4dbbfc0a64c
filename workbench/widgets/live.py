"""A figure that follows a run."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import plotly.graph_objects as go
from IPython.display import display

from workbench.plots.training import run_figure
from workbench.widgets.explorer import PLOTLY

EVERY_S = 2.0


def live(
    rows: Iterable[dict[str, Any]],
    draw: Callable[[list[dict[str, Any]]], go.Figure] = run_figure,
    every_s: float = EVERY_S,
) -> list[dict[str, Any]]:
    """Run to the end beside a figure, drawn anew every few seconds; returns all rows.

    The figure is a cell's output and needs no widgets: a notebook executed without a browser keeps the last
    one. If the run fails or is stopped, the figure shows how far it came.

        rows = live(with_bar(train(model, loader, recipe), steps))
    """
    seen: list[dict[str, Any]] = []
    handle: Any = None
    drawn = float("-inf")

    def show() -> None:
        nonlocal handle
        data = {PLOTLY: json.loads(draw(seen).to_json()), "text/plain": f"{len(seen)} steps"}
        if handle is None:
            handle = display(data, raw=True, display_id=True)
        else:
            handle.update(data, raw=True)

    try:
        for row in rows:
            seen.append(row)
            if time.monotonic() - drawn >= every_s:
                show()
                drawn = time.monotonic()
    finally:
        if seen:
            show()
    return seen
