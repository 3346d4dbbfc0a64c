"""Figures of clusters: reach, collectives, messages, memory, uneven experts, waves of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLACK,
    INK,
    PRINTED,
    SIMULATED,
    VENDOR,
    group_colors,
)
from workbench.units import GB, MICROSECOND_S

Row = Mapping[str, Any]
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "hexagon", "x")


def reach_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """What one device can send, against how many devices that reaches: one staircase a system.

    rows: {"system", "vendor", "tier", "devices", "byte_per_s"}, each system's from the inside out; infinite
    devices end at the right edge.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    known = [row["devices"] for row in rows if np.isfinite(row["devices"])]
    edge = 4 * max(known)
    dashes: dict[str, int] = {}
    for system in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == system]
        vendor = mine[0]["vendor"]
        number = dashes[vendor] = dashes.get(vendor, -1) + 1
        x, y, text = [1.5], [mine[0]["byte_per_s"] / GB], [mine[0]["tier"]]
        for row in mine:
            rate, far = row["byte_per_s"] / GB, min(row["devices"], edge)
            x += [x[-1], far]
            y += [rate, rate]
            text += [row["tier"]] * 2
        figure.add_scatter(
            name=system, mode="lines", x=x, y=y, text=text,
            line={"color": VENDOR[vendor], "dash": _DASHES[number % len(_DASHES)]},
            hovertemplate="%{text}: %{y:,.0f} GB/s up to %{x:,.0f} devices<extra>" + system + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="devices in the group", type="log", dtick=1, range=[0.15, np.log10(edge)])
    figure.update_yaxes(title="one device sends, one direction (GB/s)", type="log", dtick=1)
    return figure


def collective_figure(curves: Sequence[Row], measured: Sequence[Row], title: str) -> go.Figure:
    """Seconds of collectives against bytes, one panel a kind, with bounds and measured points.

    curves: {"panel", "name", "bytes", "lower", "expected", "upper"}, arrays; measured: {"panel", "name",
    "bytes", "seconds"}.
    """
    panels = list(dict.fromkeys(row["panel"] for row in curves))
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=panels, shared_yaxes=True, horizontal_spacing=0.03
    )
    colors = group_colors([row["name"] for row in curves])
    for number, panel in enumerate(panels, start=1):
        at = {"row": 1, "col": number}
        for row in (r for r in curves if r["panel"] == panel):
            color, name = colors[row["name"]], row["name"]
            x, low, high = (np.asarray(row[k]) for k in ("bytes", "lower", "upper"))
            figure.add_scatter(
                x=[*x, *x[::-1]], y=[*(low / MICROSECOND_S), *(high / MICROSECOND_S)[::-1]], fill="toself",
                fillcolor=color, opacity=0.12, mode="none", hoverinfo="skip", showlegend=False, **at,
            )  # fmt: skip
            figure.add_scatter(
                name=f"{name}, simulated", legendgroup=name, showlegend=number == 1, mode="lines", x=x,
                y=np.asarray(row["expected"]) / MICROSECOND_S, line={"color": color, **SIMULATED},
                hovertemplate="%{x:.3g} bytes: %{y:.3g} µs<extra>" + name + "</extra>", **at,
            )  # fmt: skip
        for name, color in colors.items():
            mine = [r for r in measured if r["panel"] == panel and r["name"] == name]
            if mine:
                figure.add_scatter(
                    name=f"{name}, measured", legendgroup=name, showlegend=number == 1, mode="markers",
                    x=[r["bytes"] for r in mine], y=[r["seconds"] / MICROSECOND_S for r in mine],
                    marker={"color": color, "size": 7},
                    hovertemplate="%{x:.3g} bytes: %{y:.3g} µs<extra>" + name + "</extra>", **at,
                )  # fmt: skip
    figure.update_xaxes(title="bytes of one rank", type="log", exponentformat="power")
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title="time (µs)", col=1)
    return figure.update_layout(template="workbench", title=title, margin={"t": 132}, legend={"y": 1.1})


def stacked_figure(
    rows: Sequence[Row], title: str, x_title: str, *, marks: Mapping[str, float] | None = None,
    mark_name: str = "", text: Mapping[str, str] | None = None,
) -> go.Figure:  # fmt: skip
    """One bar a case, cut into parts; a black line where a limit lies, and a word behind each bar.

    rows: {"case", "part", "value"}, in order; the same part of one case may come several times.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "barmode": "stack"})
    cases = list(dict.fromkeys(row["case"] for row in rows))
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        mine = sums.setdefault(row["part"], dict.fromkeys(cases, 0.0))
        mine[row["case"]] += float(row["value"])
    for part, color in group_colors(sums).items():
        figure.add_bar(
            name=part, orientation="h", y=cases, x=[sums[part][case] for case in cases], marker_color=color,
            hovertemplate="%{y}: %{x:,.3g}<extra>" + part + "</extra>",
        )  # fmt: skip
    if marks:
        figure.add_scatter(
            name=mark_name, mode="markers", y=list(marks), x=list(marks.values()),
            marker={"symbol": "line-ns", "size": 26, "line": {"width": 3, "color": BLACK}},
            hovertemplate="%{y}: %{x:,.3g}<extra>" + mark_name + "</extra>",
        )  # fmt: skip
    if text:
        ends = {case: sum(part[case] for part in sums.values()) for case in cases}
        figure.add_scatter(
            mode="text", y=cases, x=[max(ends[c], (marks or {}).get(c, 0.0)) for c in cases],
            text=[f" {text.get(case, '')}" for case in cases], textposition="middle right",
            textfont={"color": INK, "size": 12}, showlegend=False, hoverinfo="skip", cliponaxis=False,
        )  # fmt: skip
    height = 190 + 38 * len(cases)
    figure.update_xaxes(title=x_title, rangemode="tozero")
    figure.update_yaxes(categoryorder="array", categoryarray=cases[::-1], showgrid=False)
    return figure.update_layout(height=max(height, 360), margin={"t": 116, "r": 60})


def imbalance_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Load of the busiest rank over the mean against the tokens of a pass, mean and range over draws.

    rows: {"panel", "name", "tokens", "factors"}, factors being an array of one number a draw.
    """
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=panels, shared_yaxes=True, horizontal_spacing=0.03
    )
    for number, panel in enumerate(panels, start=1):
        for name, color in group_colors(row["name"] for row in rows).items():
            mine = [r for r in rows if r["panel"] == panel and r["name"] == name]
            middle = np.array([np.mean(r["factors"]) for r in mine])
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=number == 1, mode="lines+markers",
                x=[r["tokens"] for r in mine], y=middle, line={"color": color, **SIMULATED},
                error_y={"array": [np.max(r["factors"]) - m for r, m in zip(mine, middle, strict=True)],
                         "arrayminus": [m - np.min(r["factors"]) for r, m in zip(mine, middle, strict=True)],
                         "color": color, "thickness": 1, "width": 3},
                hovertemplate="%{x:,} tokens: %{y:.2f}<extra>" + name + "</extra>", row=1, col=number,
            )  # fmt: skip
    figure.update_xaxes(title="tokens of all ranks in a pass", type="log", dtick=1)
    figure.update_yaxes(type="log", tickvals=[1, 1.2, 1.5, 2, 3, 5, 10, 20, 50])
    figure.update_yaxes(title="busiest rank over mean", col=1)
    return figure.update_layout(template="workbench", title=title, margin={"t": 124}, legend={"y": 1.09})


def schedule_figure(spans: Sequence[Row], heads: Mapping[str, str], title: str) -> go.Figure:
    """Engines against time, one panel a way: dispatch, two products, activation, combine, wave by wave.

    spans: {"way", "engine", "stage", "wave", "start_s", "end_s"}; heads: a line above each panel.
    """
    ways = list(heads)
    figure = make_subplots(
        rows=len(ways), cols=1, shared_xaxes=True, subplot_titles=list(heads.values()), vertical_spacing=0.09
    )
    for note in figure.layout.annotations:
        note.update(x=0, xanchor="left", font={"size": 14})
    lanes = list(dict.fromkeys(span["engine"] for span in spans))
    for number, way in enumerate(ways, start=1):
        for stage, color in group_colors(span["stage"] for span in spans).items():
            mine = [s for s in spans if s["way"] == way and s["stage"] == stage]
            figure.add_bar(
                name=stage, legendgroup=stage, showlegend=number == 1, orientation="h",
                y=[s["engine"] for s in mine], base=[s["start_s"] / MICROSECOND_S for s in mine],
                x=[(s["end_s"] - s["start_s"]) / MICROSECOND_S for s in mine],
                marker={"color": color, "line": {"color": "white", "width": 1.5}},
                customdata=[[s["wave"] + 1, s["end_s"] / MICROSECOND_S] for s in mine],
                hovertemplate="wave %{customdata[0]}: %{base:.1f} to %{customdata[1]:.1f} µs<extra>"
                              + stage + "</extra>",
                row=number, col=1,
            )  # fmt: skip
        figure.update_yaxes(categoryorder="array", categoryarray=lanes[::-1], row=number, col=1)
    figure.update_xaxes(title="time (µs)", row=len(ways), col=1)
    return figure.update_layout(
        template="workbench", title=title, barmode="overlay", height=150 + 150 * len(ways),
        margin={"t": 124}, legend={"y": 1 + 0.32 / len(ways)},
    )  # fmt: skip


def gain_figure(curves: Sequence[Row], measured: Sequence[Row], title: str) -> go.Figure:
    """Times faster than one stage after the other, against tokens of a rank; diamonds are the report's.

    curves: {"panel", "name", "tokens", "gain"}, arrays; measured: {"panel", "tokens", "gain"}.
    """
    panels = list(dict.fromkeys(row["panel"] for row in curves))
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=panels, shared_yaxes=True, horizontal_spacing=0.03
    )
    colors = group_colors(row["name"] for row in curves)
    for number, panel in enumerate(panels, start=1):
        for row in (r for r in curves if r["panel"] == panel):
            figure.add_scatter(
                name=row["name"], legendgroup=row["name"], showlegend=number == 1, mode="lines",
                x=row["tokens"], y=row["gain"], line={"color": colors[row["name"]], **SIMULATED},
                hovertemplate="%{x:,} tokens: %{y:.2f}×<extra>" + row["name"] + "</extra>", row=1, col=number,
            )  # fmt: skip
        mine = [r for r in measured if r["panel"] == panel]
        figure.add_scatter(
            name="measured by its authors", legendgroup="measured", showlegend=number == 1, mode="markers",
            x=[r["tokens"] for r in mine], y=[r["gain"] for r in mine], marker={"color": BLACK, **PRINTED},
            hovertemplate="%{x:,} tokens: %{y:.2f}×<extra>measured</extra>", row=1, col=number,
        )  # fmt: skip
    figure.update_xaxes(title="tokens of a rank", type="log", dtick=1)
    figure.update_yaxes(range=[0.95, 2.3])
    figure.update_yaxes(title="times faster than stage by stage", col=1)
    return figure.update_layout(template="workbench", title=title, margin={"t": 124}, legend={"y": 1.09})
