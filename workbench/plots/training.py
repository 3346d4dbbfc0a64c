"""A training run as it goes: loss, gradient norm and speed by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import COLORWAY

PANELS = {
    "loss": "loss (nats a token)",
    "grad_norm": "gradient norm",
    "tokens_per_s": "speed (tokens a second)",
}


def run_figure(rows: Sequence[Mapping[str, Any]], title: str = "Training") -> go.Figure:
    """The numbers of every step so far, a panel each.

    rows: {"step", "tokens", "loss", "grad_norm", "tokens_per_s"}, as the training loop yields them.
    """
    figure = make_subplots(1, len(PANELS), horizontal_spacing=0.1)
    for column, (field, axis) in enumerate(PANELS.items(), start=1):
        figure.add_scatter(
            x=[row["step"] for row in rows], y=[row[field] for row in rows], row=1, col=column,
            mode="lines+markers" if len(rows) < 3 else "lines", line={"color": COLORWAY[0], "width": 2},
            customdata=[row["tokens"] for row in rows], showlegend=False, name=axis,
            hovertemplate="step %{x}, %{customdata:,} tokens: %{y:.4g}<extra></extra>",
        )  # fmt: skip
        figure.update_xaxes(title="step", col=column)
        figure.update_yaxes(title=axis, col=column)
    return figure.update_layout(template="workbench", title=title)
