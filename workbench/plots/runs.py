"""Figures of training at scale: who waits in a pipeline, where a cluster's time goes, bytes against work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    Palette,
    group_colors,
)

Row = Mapping[str, Any]

PASS = Palette(
    "PASS",
    {"forward": SKY, "backward": BLUE, "input": ORANGE, "weight": GREEN, "side by side": PURPLE},
)
TIME = Palette(
    "TIME",
    {
        "work": GREEN,
        "waiting for the slowest": SKY,
        "saving": ORANGE,
        "work lost": VERMILLION,
        "restarting": PURPLE,
        "flapping links": GRAY,
    },
)


def pipelines_figure(panels: Sequence[Row], title: str) -> go.Figure:
    """Ranks against time, one panel a schedule; what is empty is the bubble.

    panels: {"head", "slots"}; slots: {"rank", "start_s", "end_s", "kind", "text"}.
    """
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, subplot_titles=[p["head"] for p in panels],
        vertical_spacing=0.28 / len(panels),
    )  # fmt: skip
    for note in figure.layout.annotations:
        note.update(x=0, xanchor="left", font={"size": 14})
    named = set[str]()
    for number, panel in enumerate(panels, start=1):
        for kind in dict.fromkeys(slot["kind"] for slot in panel["slots"]):
            mine = [s for s in panel["slots"] if s["kind"] == kind]
            figure.add_bar(
                name=kind, legendgroup=kind, showlegend=kind not in named, orientation="h",
                y=[s["rank"] for s in mine], base=[s["start_s"] for s in mine],
                x=[s["end_s"] - s["start_s"] for s in mine], customdata=[s["text"] for s in mine],
                marker={"color": PASS[kind], "line": {"color": "white", "width": 0.6}},
                hovertemplate="rank %{y}: %{customdata}<br>from %{base:.2f}, %{x:.2f} long<extra></extra>",
                row=number, col=1,
            )  # fmt: skip
            named.add(kind)
        figure.update_yaxes(title="rank", autorange="reversed", dtick=1, row=number, col=1)
    figure.update_xaxes(title="time (forward passes of one rank)", row=len(panels), col=1)
    return figure.update_layout(
        template="workbench", title=title, barmode="overlay", bargap=0.15,
        height=150 + 190 * len(panels), margin={"t": 130}, legend={"y": 1 + 0.3 / len(panels)},
    )  # fmt: skip


def time_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Where chip time goes against the size of the cluster, stacked to one.

    rows: {"chips"} and a share for every name of TIME.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for name, color in TIME.items():
        figure.add_scatter(
            name=name, x=[row["chips"] for row in rows], y=[row[name] for row in rows], stackgroup="time",
            mode="lines", line={"color": color, "width": 0.5},
            hovertemplate="%{x:,} chips: %{y:.1%}<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="chips", type="log", tickvals=[row["chips"] for row in rows], tickformat=",~g")
    return figure.update_yaxes(title="share of chip time", tickformat=".0%", range=[0, 1])


def frontier_figure(curve: Row, points: Sequence[Row], title: str) -> go.Figure:
    """Bytes kept against time to compute again: single tensors as a staircase, whole modules as points.

    curve: {"bytes", "seconds"}; points: {"group", "label", "bytes", "seconds"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    figure.add_scatter(
        name="single tensors", mode="lines", x=[s * 1e6 for s in curve["seconds"]],
        y=[b / 1e6 for b in curve["bytes"]], line={"color": BLUE, "shape": "hv"},
        hovertemplate="%{x:.2f} µs again, %{y:.3f} MB kept<extra>single tensors</extra>",
    )  # fmt: skip
    for group, color in group_colors(point["group"] for point in points).items():
        mine = [point for point in points if point["group"] == group]
        figure.add_scatter(
            name=group, mode="markers", x=[p["seconds"] * 1e6 for p in mine],
            y=[p["bytes"] / 1e6 for p in mine], text=[p["label"] for p in mine],
            marker={"color": color, "size": 10, "line": {"color": PALE, "width": 1}},
            hovertemplate="%{text}: %{x:.2f} µs again, %{y:.3f} MB kept<extra>" + group + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="time to compute again (µs)", rangemode="tozero")
    return figure.update_yaxes(title="kept between forward and backward (MB)", rangemode="tozero")
