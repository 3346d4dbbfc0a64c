"""Numbers that share a scale: who suffers from an outlier, what a scale rule costs, bits against error.

Rows come from `workbench.widgets.number_formats`, which asks `workbench.quant` for every value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.number_formats import in_order, power_axis
from workbench.plots.template import (
    BLUE,
    FIGURE_HEIGHT,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    VERMILLION,
    Palette,
    group_colors,
)

Row = Mapping[str, Any]

KIND = Palette(
    "KIND",
    {
        "cast alone": GRAY,
        "FP8, FP32 scale": PURPLE,
        "shared power of two": BLUE,
        "NVFP4": GREEN,
        "HiF4": VERMILLION,
        "integer": ORANGE,
    },
)


def block_figure(values: Sequence[Row], outcomes: Sequence[Row], shown: str, reach: float) -> go.Figure:
    """One row of numbers with an outlier in a chosen format, and what every format does to the others.

    values: {"number", "stored", "scale"} of each place in the format `shown`, from the left. outcomes:
    {"format", "kind", "error", "text"}; error: that of all numbers but the outlier, as a share of their
    size. reach: the numbers' axis runs from -reach to reach; what lies outside stands as an arrow.

    Raises:
        ValueError: a kind without a colour.
    """
    figure = make_subplots(
        2, 2, column_widths=[0.58, 0.42], row_heights=[0.24, 0.76], shared_xaxes=True,
        horizontal_spacing=0.2, vertical_spacing=0.07, specs=[[{}, {"rowspan": 2}], [{}, None]],
    )  # fmt: skip
    _add_scales(figure, [row["scale"] for row in values])
    _add_values(figure, values, reach)
    figure.add_bar(
        orientation="h", y=[row["format"] for row in outcomes], x=[100 * row["error"] for row in outcomes],
        text=[row["text"] for row in outcomes], textposition="outside", cliponaxis=False, showlegend=False,
        textfont={"size": 12}, constraintext="none",
        marker={
            "color": [KIND[row["kind"]] for row in outcomes],
            "opacity": [1.0 if row["format"] == shown else 0.45 for row in outcomes],
        },
        hovertemplate="%{y}: %{x:.3g} %, %{text}<extra></extra>", row=1, col=2,
    )  # fmt: skip
    order = [row["format"] for row in outcomes]
    figure.update_yaxes(categoryorder="array", categoryarray=order, autorange="reversed", row=1, col=2)
    figure.update_yaxes(showgrid=False, ticks="", row=1, col=2)
    percents = [1, 3, 10, 30, 100]
    figure.update_xaxes(
        title="error of the others (RMS, % of their size)", type="log", range=[-0.5, 3.1],
        tickvals=percents, ticktext=[f"{p}" for p in percents], row=1, col=2,
    )  # fmt: skip
    return figure.update_layout(
        template="workbench", title=f"One outlier among {len(values)}: {shown}", bargap=0.25,
        height=160 + 26 * max(len(outcomes), 14), legend={"y": 1.02},
    )  # fmt: skip


def scale_rules_figure(rows: Sequence[Row], largest: float, title: str) -> go.Figure:
    """What the largest number of a block becomes, and the error of the whole block, rule by rule.

    rows: {"rule", "amax", "becomes", "error"}, the error as a share of the block's size. largest: that
    of the element format; the steps of the rules lie where amax passes it.
    """
    titles = ["the largest number itself", "the whole block"]
    figure = make_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=titles)
    amax = sorted({row["amax"] for row in rows})
    figure.add_scatter(
        name="no error", mode="lines", x=amax, y=amax, line={"color": PALE, "width": 6}, row=1, col=1
    )
    for (name, color), dash in zip(
        group_colors(row["rule"] for row in rows).items(), ("solid", "dash", "dot", "dashdot"), strict=False
    ):
        mine = sorted((row for row in rows if row["rule"] == name), key=lambda row: row["amax"])
        for col, key, factor in ((1, "becomes", 1), (2, "error", 100)):
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=col == 1, mode="lines", x=amax,
                y=[factor * row[key] for row in mine],
                line={"color": color, "width": 3 if dash == "solid" else 2.5, "dash": dash},
                hovertemplate="amax %{x:.3g}: %{y:.3g}<extra>" + name + "</extra>", row=1, col=col,
            )  # fmt: skip
    ticks = [t for t in (3, 4, 6, 8, 12, 16, 24) if amax[0] <= t <= amax[-1]]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{t}" for t in ticks]}
    figure.update_xaxes(title="largest number of the block (amax)", **axis)
    figure.update_yaxes(title="value it becomes", **axis, col=1)
    figure.update_yaxes(title="error (RMS, % of the block's size)", col=2)
    for edge in (largest * 2**k for k in range(-3, 4)):
        if amax[0] < edge < amax[-1]:
            figure.add_vline(x=edge, line={"color": GRAY, "dash": "dot", "width": 1})
    return figure.update_layout(
        template="workbench", title=title, height=FIGURE_HEIGHT, margin_t=120, legend_y=1.1
    )


def frontier_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Signal over quantisation noise against bits a value, scales included; a panel for each group of widths.

    rows: {"format", "kind", "panel", "bits", "sqnr"} and "side", where the name stands: "top center" and
    the like. The line is Shannon's bound for independent normal numbers, 6.02 dB a bit.

    Raises:
        ValueError: a kind without a colour.
    """
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    figure = make_subplots(1, len(panels), horizontal_spacing=0.08, subplot_titles=panels)
    for col, panel in enumerate(panels, start=1):
        shown = [row for row in rows if row["panel"] == panel]
        bits = [min(row["bits"] for row in shown) - 0.3, max(row["bits"] for row in shown) + 0.4]
        figure.add_scatter(
            name="Shannon's bound", mode="lines", x=bits, y=[20 * math.log10(2) * b for b in bits],
            line={"color": PALE, "dash": "dash"}, hoverinfo="skip", showlegend=col == 1, row=1, col=col,
        )  # fmt: skip
        for kind in in_order(KIND, (row["kind"] for row in shown)):
            mine = [row for row in shown if row["kind"] == kind]
            is_new = not any(trace.name == kind for trace in figure.data)
            figure.add_scatter(
                name=kind, legendgroup=kind, legendrank=1001 + list(KIND).index(kind), showlegend=is_new,
                mode="markers+text",
                x=[row["bits"] for row in mine], y=[row["sqnr"] for row in mine],
                text=[row["format"] for row in mine], textposition=[row["side"] for row in mine],
                textfont_size=12, cliponaxis=False,
                marker={"color": KIND[kind], "size": 11, "line": {"color": "white", "width": 1}},
                hovertemplate="%{text}: %{x:.4g} bits, %{y:.2f} dB<extra></extra>", row=1, col=col,
            )  # fmt: skip
        figure.update_xaxes(range=bits, row=1, col=col)
    figure.update_xaxes(title="bits per value, scales included")
    figure.update_yaxes(title="signal over quantisation noise (dB)", col=1)
    return figure.update_layout(
        template="workbench", title=title, height=FIGURE_HEIGHT + 60, margin_t=120, legend_y=1.08
    )


def league_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Signal over quantisation noise of every format, one mark a kind of data.

    rows: {"format", "data", "sqnr"}, formats from top to bottom in the order of the rows.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    symbols = ("circle", "diamond", "x")
    for (data, color), symbol in zip(
        group_colors(row["data"] for row in rows).items(), symbols, strict=False
    ):
        mine = [row for row in rows if row["data"] == data]
        figure.add_scatter(
            name=data, mode="markers", x=[row["sqnr"] for row in mine], y=[row["format"] for row in mine],
            marker={"color": color, "symbol": symbol, "size": 10},
            hovertemplate="%{y}: %{x:.2f} dB<extra>" + data + "</extra>",
        )  # fmt: skip
    formats = list(dict.fromkeys(row["format"] for row in rows))
    figure.update_yaxes(categoryorder="array", categoryarray=formats, autorange="reversed", ticks="")
    figure.update_xaxes(title="signal over quantisation noise (dB)")
    return figure.update_layout(height=150 + 24 * len(formats))


def _add_scales(figure: go.Figure, scales: Sequence[float]) -> None:
    edges = [place - 0.5 for place in range(len(scales) + 1)]
    figure.add_scatter(
        name="scale", mode="lines", x=edges, y=[*scales, scales[-1]], fill="tozeroy",
        line={"color": GRAY, "shape": "hv", "width": 1.5}, fillcolor="rgba(163,171,181,0.35)",
        showlegend=False, hovertemplate="place %{x:.0f}: scale %{y:.4g}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    axis = power_axis([min(scales) / 4, max(scales) * 2], ticks=4)
    figure.update_yaxes(title="scale", **axis, row=1, col=1)
    figure.update_xaxes(showgrid=False, range=[-0.5, len(scales) - 0.5], row=1, col=1)


def _add_values(figure: go.Figure, values: Sequence[Row], reach: float) -> None:
    numbers = np.array([row["number"] for row in values])
    stored = np.array([row["stored"] for row in values])
    places = np.arange(len(values))
    stems_x = np.repeat(places.astype(float), 3)
    stems_y = np.stack([np.zeros(len(values)), numbers, np.full(len(values), np.nan)], axis=1).ravel()
    figure.add_scatter(
        mode="lines", x=stems_x.tolist(), y=[None if math.isnan(y) else y for y in stems_y.tolist()],
        line={"color": PALE, "width": 1.2}, showlegend=False, hoverinfo="skip", row=2, col=1,
    )  # fmt: skip
    is_lost = (stored == 0) & (numbers != 0)
    for name, y, chosen, marker in (
        ("number", numbers, np.full(len(values), True),
         {"symbol": "circle-open", "size": 7, "color": INK, "line": {"width": 1.2}}),
        ("stored", stored, ~is_lost, {"size": 6, "color": BLUE}),
        ("stored as zero", stored, is_lost, {"size": 7, "color": VERMILLION, "symbol": "x"}),
    ):  # fmt: skip
        chosen = chosen & (abs(y) <= reach)
        figure.add_scatter(
            name=name, mode="markers", x=places[chosen].tolist(), y=y[chosen].tolist(), marker=marker,
            hovertemplate="place %{x}: %{y:.4g}<extra>" + name + "</extra>", row=2, col=1,
        )  # fmt: skip
    for place in places[abs(numbers) > reach]:
        figure.add_annotation(
            x=int(place), y=math.copysign(reach, numbers[place]), ax=40, ay=0, xanchor="left",
            text=f"{numbers[place]:.4g} → {stored[place]:.4g}", arrowcolor=INK, arrowwidth=1.2,
            font={"size": 12, "color": INK}, row=2, col=1,
        )  # fmt: skip
    figure.update_yaxes(title="number (no unit)", range=[-1.08 * reach, 1.08 * reach], row=2, col=1)
    figure.update_xaxes(title="place in the row", range=[-0.8, len(values) - 0.2], row=2, col=1)
