"""Figures of serving: fronts of speed and throughput, measured rows, waiting times, load, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLACK,
    COLORWAY,
    GRAY,
    INK,
    SIMULATED,
    VENDOR,
    group_colors,
)
from workbench.units import MILLISECOND_S

Row = Mapping[str, Any]
# Ticks of a logarithmic axis that shows few decades.
ROUND = tuple(digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5))
_EVERY_DIGIT = tuple(round(digit * 10.0**power, 4) for power in range(-4, 7) for digit in range(1, 10))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "hexagon", "x")


def front_figure(
    fronts: Sequence[Row], measured: Sequence[Row], title: str, *, limits_s: Sequence[float] = (),
    y_title: str = "output tokens per second and chip",
) -> go.Figure:  # fmt: skip
    """Throughput of a chip against the wait for a token: one front a system, measured points beside.

    fronts: {"system", "vendor", "interval_s", "rate", "text"}, lists; measured: {"system", "vendor",
    "interval_s", "rate", "text"}, one point each.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "height": 560})
    dashes: dict[str, int] = {}
    for row in fronts:
        number = dashes[row["vendor"]] = dashes.get(row["vendor"], -1) + 1
        figure.add_scatter(
            name=row["system"], mode="lines", x=[s / MILLISECOND_S for s in row["interval_s"]], y=row["rate"],
            text=row["text"], line={"color": VENDOR[row["vendor"]], "dash": DASHES[number % len(DASHES)]},
            hovertemplate="%{x:.1f} ms, %{y:,.0f} tok/s<br>%{text}<extra>" + row["system"] + "</extra>",
        )  # fmt: skip
    for i, system in enumerate(dict.fromkeys(row["system"] for row in measured)):
        mine = [row for row in measured if row["system"] == system]
        figure.add_scatter(
            name=f"{system}, measured", mode="markers", x=[r["interval_s"] / MILLISECOND_S for r in mine],
            y=[r["rate"] for r in mine], text=[r["text"] for r in mine],
            marker={"color": VENDOR[mine[0]["vendor"]], "size": 10, "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                    "line": {"color": INK, "width": 1.2}},
            hovertemplate="%{x:.1f} ms, %{y:,.0f} tok/s<br>%{text}<extra>" + system + "</extra>",
        )  # fmt: skip
    for limit in limits_s:
        figure.add_vline(x=limit / MILLISECOND_S, line={"color": GRAY, "dash": "dot", "width": 1.2})
    figure.update_xaxes(title="time per output token (ms)", type="log", tickvals=ROUND)
    figure.update_yaxes(title=y_title, type="log", dtick=1)
    return figure.update_layout(margin={"t": 150})


def ratio_figure(rows: Sequence[Row], title: str, *, aim: float) -> go.Figure:
    """Predicted over measured, a line a row with its bounds, in groups; dotted lines are the aim.

    rows: {"group", "label", "ratio", "lower", "upper"}; lower and upper may be None.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    labels = [f"{row['label']}" for row in rows]
    for group, color in group_colors(row["group"] for row in rows).items():
        at = [i for i, row in enumerate(rows) if row["group"] == group]
        mine = [rows[i] for i in at]
        ends = [(r["lower"] or r["ratio"], r["ratio"], r["upper"] or r["ratio"]) for r in mine]
        figure.add_scatter(
            name=group, mode="markers", x=[r["ratio"] for r in mine], y=at, marker={"color": color},
            error_x={"array": [high - middle for _, middle, high in ends], "thickness": 1.5, "width": 0,
                     "arrayminus": [middle - low for low, middle, _ in ends], "color": color},
            customdata=[labels[i] for i in at],
            hovertemplate="%{customdata}: %{x:.2f} of the measured<extra>" + group + "</extra>",
        )  # fmt: skip
    for x, dash in ((1.0, "solid"), (1 + aim, "dot"), (1 / (1 + aim), "dot")):
        figure.add_vline(x=x, line={"color": BLACK, "width": 1.2, "dash": dash})
    figure.update_xaxes(
        title="predicted over measured", type="log", tickvals=[0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5]
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=labels, autorange="reversed", tickfont={"size": 11},
        gridcolor="#F2F4F6",
    )  # fmt: skip
    return figure.update_layout(height=180 + 19 * len(rows), margin={"t": 112})


def lines_figure(
    rows: Sequence[Row], title: str, x_title: str, y_title: str, *, log_x: bool = True, log_y: bool = True
) -> go.Figure:
    """Simulated lines with bounds. rows: {"name", "x", "y"} and, if known, "lower" and "upper"; arrays."""
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for i, row in enumerate(rows):
        color = COLORWAY[i % len(COLORWAY)]
        x = list(row["x"])
        if "lower" in row:
            figure.add_scatter(
                x=x + x[::-1], y=[*row["lower"], *list(row["upper"])[::-1]], fill="toself", fillcolor=color,
                opacity=0.1, mode="none", hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        figure.add_scatter(
            name=row["name"], mode="lines+markers", x=x, y=list(row["y"]),
            line={"color": color, **SIMULATED}, marker={"size": 6},
            hovertemplate="%{x:,.4g}: %{y:,.4g}<extra>" + row["name"] + "</extra>",
        )  # fmt: skip
    ticks = sorted({x for row in rows for x in row["x"]})
    figure.update_xaxes(title=x_title, type="log" if log_x else "linear")
    if log_x and len(ticks) <= 14:
        figure.update_xaxes(tickvals=ticks, tickformat=",~g")
    figure.update_yaxes(title=y_title, type="log" if log_y else "linear")
    values = [float(y) for row in rows for y in row["y"] if y and y > 0]
    if not log_y or not values:
        return figure
    is_narrow = max(values) < 8 * min(values)  # then 1, 2 and 5 leave an axis without a second tick
    return figure.update_yaxes(tickvals=_EVERY_DIGIT if is_narrow else ROUND)


def tornado_figure(
    rows: Sequence[Row], title: str, *, most: int = 14, x_title: str = "time per output token (ms)"
) -> go.Figure:
    """The answer with each constant at both ends of its interval, longest bar on top.

    rows: {"name", "kind", "lower", "upper", "lower_value", "upper_value", "base"}, sorted; lower_value is the
    answer at the constant's lower end.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "barmode": "overlay"})
    shown = list(rows[:most])
    for kind, color in group_colors(row["kind"] for row in shown).items():
        mine = [row for row in shown if row["kind"] == kind]
        figure.add_bar(
            name=kind, orientation="h", y=[row["name"] for row in mine], marker_color=color,
            base=[min(row["lower_value"], row["upper_value"]) for row in mine],
            x=[abs(row["upper_value"] - row["lower_value"]) for row in mine],
            customdata=[
                [_short(row["lower"]), row["lower_value"], _short(row["upper"]), row["upper_value"]]
                for row in mine
            ],
            hovertemplate="%{y}<br>%{customdata[0]}: %{customdata[1]:.3g}<br>%{customdata[2]}: "
                          "%{customdata[3]:.3g}<extra>" + kind + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=shown[0]["base"], line={"color": BLACK, "width": 1.5})
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(categoryorder="array", categoryarray=[row["name"] for row in shown][::-1])
    return figure.update_layout(height=200 + 26 * len(shown))


def serving_figure(
    parts: Sequence[Row], memory: Sequence[Row], curve: Row, here: Row, measured: Sequence[Row], title: str
) -> go.Figure:
    """One setting: where a step goes, what memory holds, and its place among all batches and measured points.

    parts: {"part", "ms"}; memory: {"part", "gib", "room"}; curve: {"ms", "rate", "lower", "upper"}, lists;
    here: {"ms", "rate", "text"}; measured: {"ms", "rate", "text", "is_near"}.
    """
    figure = make_subplots(
        rows=2, cols=2, specs=[[{}, {"rowspan": 2}], [{}, None]], horizontal_spacing=0.16,
        vertical_spacing=0.24,
        subplot_titles=["one decoding step", "all batches", "memory of one device"],
    )  # fmt: skip
    figure.add_bar(
        orientation="h", y=[p["part"] for p in parts], x=[p["ms"] for p in parts], marker_color=COLORWAY[0],
        showlegend=False, hovertemplate="%{y}: %{x:.2f} ms<extra></extra>", row=1, col=1,
    )  # fmt: skip
    figure.add_bar(
        orientation="h", y=[m["part"] for m in memory], x=[m["gib"] for m in memory],
        marker_color=COLORWAY[4], showlegend=False, hovertemplate="%{y}: %{x:.1f} GiB<extra></extra>",
        row=2, col=1,
    )  # fmt: skip
    ms, low, high = (list(curve[k]) for k in ("ms", "lower", "upper"))
    figure.add_scatter(
        name="lower to upper bound", x=low + high[::-1], y=[*curve["rate_upper"], *curve["rate_lower"][::-1]],
        fill="toself", mode="none", fillcolor="rgba(0,114,178,0.12)", hoverinfo="skip", row=1, col=2,
    )  # fmt: skip
    figure.add_scatter(
        name="simulated", mode="lines", x=ms, y=curve["rate"], text=curve["text"],
        line={"color": COLORWAY[0], **SIMULATED},
        hovertemplate="%{text}: %{x:.1f} ms, %{y:,.0f} tok/s<extra></extra>", row=1, col=2,
    )  # fmt: skip
    for is_near, name in ((True, "measured, like this one"), (False, "measured, other context or drafts")):
        mine = [m for m in measured if m["is_near"] == is_near]
        figure.add_scatter(
            name=name, mode="markers", x=[m["ms"] for m in mine], y=[m["rate"] for m in mine],
            text=[m["text"] for m in mine],
            marker={"color": COLORWAY[5] if is_near else "white", "size": 9,
                    "line": {"color": COLORWAY[5], "width": 1.5}},
            hovertemplate="%{text}<br>%{x:.1f} ms, %{y:,.0f} tok/s<extra></extra>", row=1, col=2,
        )  # fmt: skip
    figure.add_scatter(
        name="this setting", mode="markers", x=[here["ms"]], y=[here["rate"]], text=[here["text"]],
        marker={"symbol": "star", "size": 18, "color": BLACK}, hovertemplate="%{text}<extra></extra>",
        row=1, col=2,
    )  # fmt: skip
    figure.update_xaxes(title="time (ms)", row=1, col=1)
    figure.update_xaxes(title=f"GiB of {memory[0]['room']:.0f}", row=2, col=1)
    figure.update_xaxes(title="time per output token (ms)", type="log", tickvals=ROUND, row=1, col=2)
    figure.update_yaxes(autorange="reversed", dtick=1, tickfont={"size": 11}, col=1)
    figure.update_yaxes(title="output tok/s and chip", type="log", dtick=1, row=1, col=2)
    return figure.update_layout(
        template="workbench",
        title={"text": title, "pad": {"t": 28, "l": 14}},
        height=680,
        margin={"t": 170},
        legend={"y": 1.1},
    )


def _short(end: float | str) -> str:
    return end if isinstance(end, str) else f"{end:.3g}"
