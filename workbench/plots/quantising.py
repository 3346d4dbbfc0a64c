"""Quantised networks: what rounding costs, product by product, size by size, run by run, chip by chip."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLUE,
    FIGURE_HEIGHT,
    GRAY,
    PALE,
    SIMULATED,
    VENDOR,
    VERMILLION,
    group_colors,
)

Row = Mapping[str, Any]
_SYMBOLS = ("circle", "square", "circle-open", "square-open", "diamond-open")
_BELOW = {"y": -0.2, "yanchor": "top"}
ROLES = {"experts": "routed experts", "linear": "linear maps", "plain": "compressors, head weights, o_a"}


def error_figure(rows: Sequence[Row]) -> go.Figure:
    """The signal-to-noise ratio of every product; one panel a role, one colour a recipe.

    rows: {"recipe", "product", "role", "sqnr_db"}, products in the order of the network.
    """
    roles = [role for role in ROLES if any(row["role"] == role for row in rows)]
    counts = [len({row["product"] for row in rows if row["role"] == role}) for role in roles]
    figure = make_subplots(
        1, len(roles), shared_yaxes=True, horizontal_spacing=0.03,
        subplot_titles=[ROLES[role] for role in roles], column_widths=[max(n, 6) for n in counts],
    )  # fmt: skip
    for recipe, color in group_colors(row["recipe"] for row in rows).items():
        for col, role in enumerate(roles, start=1):
            mine = [row for row in rows if row["role"] == role and row["recipe"] == recipe]
            figure.add_scatter(
                name=recipe, legendgroup=recipe, showlegend=col == 1, mode="lines+markers",
                x=list(range(len(mine))), y=[row["sqnr_db"] for row in mine], line_color=color,
                customdata=[row["product"].removeprefix("model.layers.") for row in mine],
                hovertemplate="%{customdata}: %{y:.1f} dB<extra>" + recipe + "</extra>", row=1, col=col,
            )  # fmt: skip
    figure.update_xaxes(title="product, first to last", dtick=5)
    figure.update_yaxes(title="signal to noise of its output (dB)", col=1, rangemode="tozero")
    return figure.update_layout(
        template="workbench", title="The error that each product makes by itself", legend=_BELOW, margin_b=110
    )


def spread_figure(rows: Sequence[Row], intervals: Sequence[Row], title: str, x_title: str) -> go.Figure:
    """Runs as dots and their mean with its 95% interval, one line a name; one panel a design.

    rows: {"panel", "name", "seed", "value"}; intervals: {"panel", "name", "mean", "low", "high"}, and on
    request "limit": a band of ± limit is shaded in that panel.
    """
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    figure = make_subplots(1, len(panels), horizontal_spacing=0.2, subplot_titles=panels)
    for col, panel in enumerate(panels, start=1):
        cell = dict(row=1, col=col)
        mine = [row for row in rows if row["panel"] == panel]
        whole = [row for row in intervals if row["panel"] == panel]
        figure.add_scatter(
            name="mean and 95% interval", showlegend=col == 1, mode="markers",
            x=[row["mean"] for row in whole], y=[row["name"] for row in whole],
            error_x={
                "array": [row["high"] - row["mean"] for row in whole],
                "arrayminus": [row["mean"] - row["low"] for row in whole],
                "thickness": 2, "width": 6,
            },
            marker={"color": BLUE, "size": 11, "symbol": "diamond"}, **cell,
        )  # fmt: skip
        figure.add_scatter(
            name="one run each", showlegend=col == 1, mode="markers",
            x=[row["value"] for row in mine], y=[row["name"] for row in mine],
            marker={"color": VERMILLION, "size": 7, "symbol": "circle-open", "line": {"width": 2}}, **cell,
            customdata=[row["seed"] for row in mine],
            hovertemplate="seed %{customdata}: %{x:.4g}<extra></extra>",
        )  # fmt: skip
        # After the points: plotly draws no band into a panel that is still empty.
        if limit := next((row["limit"] for row in whole if row.get("limit")), None):
            band = dict(fillcolor=PALE, opacity=0.3, line_width=0, layer="below")
            figure.add_vrect(x0=-limit, x1=limit, **band, **cell)
        figure.add_vline(x=0, line={"color": GRAY, "dash": "dot", "width": 1.5}, layer="below", **cell)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(title="arithmetic", autorange="reversed")
    return figure.update_layout(
        template="workbench", title=title, height=FIGURE_HEIGHT - 60, legend=_BELOW, margin_b=100
    )


def sweep_figure(
    rows: Sequence[Row], title: str, x_title: str, y_title: str, *, log_y: bool = False
) -> go.Figure:
    """One quantity against another on a log2 axis, one line a series, dashed: simulated.

    rows: {"series", "x", "y"}, x positive.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    colors = group_colors(row["series"] for row in rows)
    # Open marks come last and larger: lines that coincide stay readable.
    for (series, color), symbol in zip(colors.items(), cycle(_SYMBOLS), strict=False):
        mine = sorted((row for row in rows if row["series"] == series), key=lambda row: row["x"])
        figure.add_scatter(
            name=series, mode="lines+markers", line={"color": color, **SIMULATED},
            marker={"symbol": symbol, "size": 11 if symbol.endswith("open") else 7, "color": color},
            marker_line={"width": 2, "color": color},
            x=[row["x"] for row in mine], y=[row["y"] for row in mine],
        )  # fmt: skip
    ticks = sorted({row["x"] for row in rows})
    figure.update_xaxes(
        title=x_title, type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks], minor_ticks=""
    )
    figure.update_yaxes(title=y_title, type="log" if log_y else "linear", exponentformat="power")
    return figure.update_layout(legend=_BELOW, margin_b=110)


def share_figure(
    rows: Sequence[Row], title: str, x_title: str, limits: Mapping[str, float] | None = None
) -> go.Figure:
    """Shares by power of two, series side by side; limits are vertical lines with a name.

    rows: {"series", "log2", "share"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for series, color in group_colors(row["series"] for row in rows).items():
        mine = sorted((row for row in rows if row["series"] == series), key=lambda row: row["log2"])
        figure.add_bar(
            name=series, marker_color=color,
            x=[row["log2"] for row in mine], y=[100 * row["share"] for row in mine],
            hovertemplate="2^%{x}: %{y:.3g}%<extra>" + series + "</extra>",
        )  # fmt: skip
    for name, place in (limits or {}).items():
        figure.add_vline(
            x=place, line={"color": GRAY, "dash": "dot"}, annotation_text=name, annotation_position="top left"
        )
    span = max(row["log2"] for row in rows) - min(row["log2"] for row in rows)
    figure.update_xaxes(title=x_title, dtick=1 if span <= 16 else 2).update_yaxes(title="share (%)")
    return figure.update_layout(legend=_BELOW, margin_b=110, bargap=0.15)


def chip_figure(rows: Sequence[Row]) -> go.Figure:
    """How far the network's predictions move in each chip's arithmetic; colours are vendors.

    rows: {"chip", "vendor", "kl"}, kl in nats a token; vendor None: no maker's, V4's own reference.
    """
    figure = go.Figure(
        layout={"template": "workbench", "title": "One network in the arithmetic of each chip"}
    )
    for vendor in dict.fromkeys(row["vendor"] for row in rows):
        mine = [row for row in rows if row["vendor"] == vendor]
        figure.add_scatter(
            name=vendor or "reference", mode="markers", x=[row["kl"] for row in mine],
            y=[row["chip"] for row in mine], hovertemplate="%{y}: %{x:.2e} nats<extra></extra>",
            marker={"color": VENDOR[(vendor or "other").lower()], "size": 13},
        )  # fmt: skip
    figure.update_xaxes(
        title="KL divergence from the unrounded network (nats a token)", type="log", dtick=1,
        exponentformat="power", minor={"dtick": "D1", "ticks": "outside"},
    )  # fmt: skip
    order = [row["chip"] for row in rows]
    figure.update_yaxes(title="chip", autorange="reversed", categoryorder="array", categoryarray=order)
    return figure.update_layout(height=FIGURE_HEIGHT + 80, legend=_BELOW, margin_b=110)


def format_figure(errors: Sequence[Row], sizes: Sequence[Row], chosen: str, fmt: str) -> go.Figure:
    """Left: the error of every weight in one format. Right: the chosen weight's numbers and their errors.

    errors: {"product", "role", "sqnr_db"}; sizes: {"series", "log2", "share"}.
    """
    figure = make_subplots(
        1, 2, horizontal_spacing=0.12,
        subplot_titles=[f"weights in {fmt}", chosen.removeprefix("model.layers.")],
    )  # fmt: skip
    colors = group_colors(ROLES)
    for role, color in colors.items():
        places = [i for i, row in enumerate(errors) if row["role"] == role]
        figure.add_scatter(
            name=ROLES[role], mode="markers", x=places, y=[errors[i]["sqnr_db"] for i in places],
            marker={"color": color, "size": [15 if errors[i]["product"] == chosen else 8 for i in places]},
            customdata=[errors[i]["product"].removeprefix("model.layers.") for i in places],
            hovertemplate="%{customdata}: %{y:.1f} dB<extra></extra>", row=1, col=1,
        )  # fmt: skip
    for series, color in zip(dict.fromkeys(row["series"] for row in sizes), (GRAY, VERMILLION), strict=True):
        mine = [row for row in sizes if row["series"] == series]
        figure.add_scatter(
            name=series, mode="lines", line={"color": color, "shape": "hvh"},
            x=[row["log2"] for row in mine], y=[100 * row["share"] for row in mine], row=1, col=2,
        )  # fmt: skip
    figure.update_xaxes(title="product, first to last", col=1)
    figure.update_xaxes(title="size beside the weight's root mean square (power of two)", col=2)
    figure.update_yaxes(title="signal to noise of the weight (dB)", col=1)
    figure.update_yaxes(title="share of numbers (%)", col=2)
    return figure.update_layout(
        template="workbench", title="A format, a weight, its errors", legend=_BELOW, margin_b=110
    )
