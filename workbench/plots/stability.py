"""Figures of stability: a run's losses above its outliers, and what a remedy changes, seed by seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, LOG_TICKS, VERMILLION, group_colors

Row = Mapping[str, Any]
PANELS = {"loss": "loss (nats a token)", "expert_output": "largest expert output"}


def spikes_figure(runs: Mapping[str, Row], title: str) -> go.Figure:
    """Losses over steps, and below them the largest number that the experts returned; spikes are marked.

    runs: by name {"loss", "expert_output", "is_spike"}, one value a step.
    """
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06)
    for name, color in group_colors(runs).items():
        for number, field in enumerate(PANELS, start=1):
            values, is_spike = runs[name][field], runs[name]["is_spike"]
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=number == 1, mode="lines", y=values,
                x=list(range(1, len(values) + 1)), line={"color": color, "width": 1.8},
                hovertemplate="step %{x}: %{y:.4g}<extra>" + name + "</extra>", row=number, col=1,
            )  # fmt: skip
            if number == 1 and any(is_spike):
                at = [step for step, spike in enumerate(is_spike) if spike]
                figure.add_scatter(
                    name=f"{name}, spike", legendgroup=name, mode="markers", x=[step + 1 for step in at],
                    y=[values[step] for step in at], row=1, col=1,
                    marker={"symbol": "triangle-down", "size": 11, "color": VERMILLION,
                            "line": {"color": color, "width": 1.5}},
                    hovertemplate="spike at step %{x}: %{y:.3f}<extra>" + name + "</extra>",
                )  # fmt: skip
    for number, axis in enumerate(PANELS.values(), start=1):
        figure.update_yaxes(title=axis, type="log", tickvals=LOG_TICKS, tickformat=",~g", row=number, col=1)
    figure.update_xaxes(title="step", row=2, col=1)
    return figure.update_layout(template="workbench", title=title, height=560)


def differences_figure(rows: Sequence[Row], title: str, x_title: str) -> go.Figure:
    """What a remedy changes: a dot a seed, a bar the mean's interval; right of the line it is worse.

    rows: {"label", "values", "value", "low", "high"}, each with the differences of its seeds.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "height": 180 + 60 * len(rows)})
    labels = [row["label"] for row in rows]
    figure.add_scatter(
        name="a seed", mode="markers", x=[v for row in rows for v in row["values"]],
        y=[row["label"] for row in rows for _ in row["values"]],
        marker={"size": 8, "opacity": 0.55}, hovertemplate="%{x:+.4f}<extra>a seed</extra>",
    )  # fmt: skip
    figure.add_scatter(
        name="mean, 95 %", mode="markers", x=[row["value"] for row in rows], y=labels,
        error_x={"array": [row["high"] - row["value"] for row in rows],
                 "arrayminus": [row["value"] - row["low"] for row in rows], "thickness": 2, "width": 6},
        marker={"symbol": "line-ns-open", "size": 16, "color": BLACK},
        hovertemplate="%{x:+.4f}<extra>mean</extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": BLACK, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    return figure.update_xaxes(title=x_title)
