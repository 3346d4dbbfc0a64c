"""Figures of pre-training in small: curves with the range of their seeds, and the stages of a curriculum."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import COLORWAY, GRAY, SIMULATED, group_colors

Row = Mapping[str, Any]


def bands_figure(
    rows: Sequence[Row], title: str, x_title: str, y_title: str, *, log_x: bool = False, log_y: bool = False
) -> go.Figure:
    """A line through the means of the seeds, in the band between the smallest and the largest.

    rows: {"name", "seed", "x", "y"}, in any order; a "bound" of a row is drawn dashed, its largest where
    seeds differ.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "height": 460})
    for name, color in group_colors(row["name"] for row in rows).items():
        found: dict[float, list[float]] = defaultdict(list)
        bounds: dict[float, list[float]] = defaultdict(list)
        for row in rows:
            if row["name"] == name:
                found[row["x"]].append(row["y"])
                if row.get("bound") is not None:
                    bounds[row["x"]].append(row["bound"])
        xs = sorted(found)
        low, high = ([end(found[x]) for x in xs] for end in (min, max))
        figure.add_scatter(
            x=[*xs, *xs[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=color, opacity=0.18,
            line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, legendgroup=name,
        )  # fmt: skip
        figure.add_scatter(
            name=name, legendgroup=name, x=xs, y=[sum(found[x]) / len(found[x]) for x in xs],
            mode="lines+markers" if len(xs) < 12 else "lines", line={"color": color, "width": 2.2},
            customdata=[len(found[x]) for x in xs],
            hovertemplate="%{x:,}: %{y:.4g}, mean of %{customdata} seeds<extra>" + name + "</extra>",
        )  # fmt: skip
        if bounds:
            ends = sorted(bounds)
            figure.add_scatter(
                name=f"{name}: bound", legendgroup=name, x=ends, y=[max(bounds[x]) for x in ends],
                mode="lines", line={"color": color, "width": 1.5, **SIMULATED},
            )  # fmt: skip
    figure.update_xaxes(title=x_title, type="log" if log_x else "linear")
    if log_x:  # the values that were tried, not powers of ten between them
        figure.update_xaxes(
            tickvals=(ticks := sorted({row["x"] for row in rows})), ticktext=[f"{x:,}" for x in ticks]
        )
    return figure.update_yaxes(title=y_title, type="log" if log_y else "linear")


STAGE_PANELS = {
    "loss_64": "loss on rows of 64 (nats a token)",
    "loss_256": "loss on rows of 256 (nats a token)",
    "recall": "recall of the indexers",
}


def stages_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """What each way has come to after each of its stages: loss on short and long rows, recall.

    rows: {"way", "seed", "step", "loss_64", "loss_256", "recall"}; every seed is a thin line, the mean a
    thick one.
    """
    figure = make_subplots(1, len(STAGE_PANELS), horizontal_spacing=0.09)
    for way, color in group_colors(row["way"] for row in rows).items():
        own = [row for row in rows if row["way"] == way and row["step"]]
        steps = sorted({row["step"] for row in own})
        for column, field in enumerate(STAGE_PANELS, start=1):
            for seed in sorted({row["seed"] for row in own}):
                mine = sorted((r for r in own if r["seed"] == seed), key=lambda r: r["step"])
                figure.add_scatter(
                    x=[r["step"] for r in mine], y=[r[field] for r in mine], mode="lines", opacity=0.3,
                    line={"color": color, "width": 1}, showlegend=False, hoverinfo="skip", legendgroup=way,
                    row=1, col=column,
                )  # fmt: skip
            means = [_mean([r[field] for r in own if r["step"] == step]) for step in steps]
            figure.add_scatter(
                name=way, legendgroup=way, showlegend=column == 1, x=steps, y=means, mode="lines+markers",
                line={"color": color, "width": 2.2}, row=1, col=column,
                hovertemplate="after %{x} steps: %{y:.3f}<extra>" + way + "</extra>",
            )  # fmt: skip
    for column, axis in enumerate(STAGE_PANELS.values(), start=1):
        figure.update_xaxes(title="step", col=column)
        figure.update_yaxes(title=axis, col=column)
    return figure.update_layout(template="workbench", title=title, height=460)


def heads_figure(rows: Sequence[Row], title: str, idle: float) -> go.Figure:
    """How much a head gives to keys rather than to its sink, seed by seed, layer by layer.

    rows: {"layer", "seed", "value"}; below `idle` a head is as good as off.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "height": 340})
    figure.add_scatter(
        x=[row["value"] for row in rows], y=[row["layer"] for row in rows], mode="markers",
        marker={"size": 11, "opacity": 0.55, "color": COLORWAY[0]}, customdata=[row["seed"] for row in rows],
        hovertemplate="%{x:.3f}, seed %{customdata}<extra>%{y}</extra>", showlegend=False,
    )  # fmt: skip
    figure.add_vline(x=idle, line={"color": GRAY, "width": 1.5, **SIMULATED}, annotation_text="idle below")
    figure.update_xaxes(title="attention on keys, the rest is the sink's (share)", range=[0, 1.02])
    return figure.update_yaxes(autorange="reversed")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
