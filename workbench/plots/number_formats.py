"""Single numbers: their bits, the values that a format has, and how far rounding moves a number.

Rows come from `workbench.widgets.number_formats`, which asks `workbench.quant` for every bit.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLUE,
    FIGURE_HEIGHT,
    GRAY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    Palette,
    group_colors,
)

Row = Mapping[str, Any]
Fields = Sequence[tuple[str, str]]

FIELD = Palette(
    "FIELD",
    {"sign": VERMILLION, "dot": PURPLE, "exponent": BLUE, "mantissa": ORANGE, "integer": GRAY},
)
# Bits of mantissa that a value has left: the more, the darker.
PRECISION = Palette(
    "PRECISION",
    {"0 bits": VERMILLION, "1 bit": ORANGE, "2 bits": SKY, "3 bits": BLUE, "4 and more": INK},
)
LANE_PIXELS = 30
_SET, _CLEAR = 1.0, 0.2  # opacity of a bit that is 1, and of one that is 0
_CODE, _VALUE, _ERROR = (
    10.8,
    14.4,
    19.4,
)  # where the columns of text stand, in bits right of the mantissa's start


def bits_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """One number in many formats: its bits, aligned at the mantissa, and where it lies in its gap.

    rows: {"format", "fields", "code", "value", "error"} and {"below", "above", "position", "goes_to"}.
    fields: (name, bits) from the top bit down. value, error, below, above: texts as shown. position: the
    number's place between its neighbours, 0 to 1, more beyond the last value; goes_to: the place of the
    value it is rounded to, None where that is no number. A row without "position" is drawn on the left only.

    Raises:
        ValueError: a field without a colour.
    """
    figure = make_subplots(1, 2, shared_yaxes=True, column_widths=[0.66, 0.34], horizontal_spacing=0.02)
    add_bits(
        figure, [(row["format"], row["fields"], -_width(row, "sign", "dot", "exponent")) for row in rows]
    )
    _add_outcomes(figure, rows)
    _add_gaps(figure, [row for row in rows if row.get("position") is not None])
    lanes = [row["format"] for row in rows]
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=lanes, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(showgrid=False, showline=False, ticks="", showticklabels=False)
    figure.update_xaxes(range=[-9.6, 22.6], col=1).update_xaxes(range=[-0.85, 1.85], col=2)
    height = 160 + LANE_PIXELS * len(rows)
    return figure.update_layout(
        template="workbench", title=title, barmode="overlay", bargap=0.22, height=height,
        margin={"t": 112, "b": 30}, legend={"y": 1 + 34 / (height - 142)},
        shapes=[{"type": "line", "x0": -0.5, "x1": -0.5, "y0": 0, "y1": 1, "yref": "y domain",
                 "line": {"color": INK, "width": 1.5}}],
    )  # fmt: skip


def number_lines_figure(rows: Sequence[Row], title: str, *, reach: float | None = None) -> go.Figure:
    """Every value of every format as a tick, coloured by the bits of mantissa it has left.

    rows: {"format", "value", "precision"}; formats from top to bottom in the order of the rows. reach:
    the axis is linear from -reach to reach; without it, positive values on a logarithmic axis.

    Raises:
        ValueError: a precision without a colour.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for precision in in_order(PRECISION, (row["precision"] for row in rows)):
        color = PRECISION[precision]
        mine = [row for row in rows if row["precision"] == precision and (reach or row["value"] > 0)]
        if mine:
            figure.add_scatter(
                name=precision, mode="markers", x=[r["value"] for r in mine], y=[r["format"] for r in mine],
                marker={"symbol": "line-ns", "size": 15, "line": {"color": color, "width": 1.6}},
                hovertemplate="%{y}: %{x:.6g}<extra>" + precision + " of mantissa</extra>",
            )  # fmt: skip
    lanes = list(dict.fromkeys(row["format"] for row in rows))
    figure.update_yaxes(categoryorder="array", categoryarray=lanes, autorange="reversed", ticks="")
    if reach:
        _say_what_is_outside(figure, rows, reach)
        figure.update_xaxes(title="value", range=[-1.02 * reach, 1.02 * reach])
    else:
        figure.update_xaxes(title="value (powers of two)", **power_axis([r["value"] for r in rows]))
    return figure.update_layout(height=150 + LANE_PIXELS * len(lanes), legend_title_text="bits of mantissa")


def relative_error_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """The worst relative error of rounding in each binade, one line a format.

    rows: {"format", "magnitude", "error"}: where the binade begins, the error as a share of the number.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title, "height": FIGURE_HEIGHT})
    dashes = itertools.cycle(("solid", "dash", "dot", "dashdot"))
    for name, color in group_colors(row["format"] for row in rows).items():
        mine = sorted((row for row in rows if row["format"] == name), key=lambda row: row["magnitude"])
        figure.add_scatter(
            name=name, mode="lines", x=[r["magnitude"] for r in mine], y=[100 * r["error"] for r in mine],
            line={"color": color, "shape": "hv", "dash": next(dashes)},
            hovertemplate="%{x:.3g} and up: %{y:.3g} %<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="number (powers of two)", **power_axis([row["magnitude"] for row in rows]))
    percents = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    return figure.update_yaxes(
        title="worst relative error in the binade (%)", type="log", tickvals=percents,
        ticktext=[f"{p:g}" for p in percents],
    )  # fmt: skip


def rounding_figure(means: Sequence[Row], sums: Sequence[Row], title: str) -> go.Figure:
    """Nearest against stochastic rounding: the mean of many draws, and a sum that is rounded at each step.

    means: {"rounding", "number", "mean"}; sums: {"rounding", "step", "sum"}. The rounding "exact" is gray.
    """
    figure = make_subplots(
        1, 2, horizontal_spacing=0.11, subplot_titles=["mean of many roundings", "adding a small step"]
    )
    names = dict.fromkeys(row["rounding"] for row in [*means, *sums])
    colors = dict(zip((name for name in names if name != "exact"), (BLUE, ORANGE), strict=False))
    for col, rows, x, y in ((1, means, "number", "mean"), (2, sums, "step", "sum")):
        for name in names:
            mine = [row for row in rows if row["rounding"] == name]
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=col == 1, mode="lines",
                x=[row[x] for row in mine], y=[row[y] for row in mine],
                line={"color": colors.get(name, PALE), "width": 2.5 if name in colors else 5},
                hovertemplate="%{x:.4g}: %{y:.4g}<extra>" + name + "</extra>", row=1, col=col,
            )  # fmt: skip
    figure.update_xaxes(title="number", col=1).update_xaxes(title="steps added", col=2)
    figure.update_yaxes(title="mean of its roundings", col=1).update_yaxes(title="sum", col=2)
    return figure.update_layout(
        template="workbench", title=title, height=FIGURE_HEIGHT, margin_t=120, legend_y=1.1
    )


def in_order(palette: Palette, names: Iterable[str]) -> list[str]:
    """The distinct names in the order of their palette, so that legends of like figures read alike.

    Raises:
        ValueError: a name without a colour.
    """
    distinct = set(names)
    for name in distinct:
        palette[name]
    return [name for name in palette if name in distinct]


def power_axis(values: Sequence[float], ticks: int = 12) -> dict[str, Any]:
    """A logarithmic axis over positive values with about `ticks` powers of two as its ticks."""
    powers = [math.log2(v) for v in values if v > 0]
    low, high = math.floor(min(powers)), math.ceil(max(powers))
    step = max(1, -(-(high - low) // ticks))
    marked = range(-(-low // step) * step, high + 1, step)
    margin = 0.015 * (high - low)
    return {
        "type": "log",
        "tickvals": [2.0**p for p in marked],
        "ticktext": [f"2<sup>{p}</sup>".replace("-", "−") for p in marked],
        "range": [(end * math.log10(2)) for end in (low - margin, high + margin)],
    }


def add_bits(figure: go.Figure, lanes: Sequence[tuple[str, Fields, int]]) -> None:
    """Draw codes as squares on the first axes: (lane, fields, where its first bit stands).

    Raises:
        ValueError: a field without a colour.
    """
    cells: dict[str, list[tuple[str, int, str, str]]] = {}
    for lane, fields, first in lanes:
        for name, bits in fields:
            hover = f"{lane}: {name} {bits}"
            cells.setdefault(name, []).extend((lane, first + i, bit, hover) for i, bit in enumerate(bits))
            first += len(bits)
    for name in in_order(FIELD, cells):
        lane_of, places, text, hovers = zip(*cells[name], strict=True)
        figure.add_bar(
            name=name, orientation="h", y=lane_of, base=[place - 0.5 for place in places], x=[1] * len(text),
            text=text, textposition="inside", insidetextanchor="middle", textangle=0, hovertext=hovers,
            textfont={"size": 12, "color": [_ink(name, bit) for bit in text]},
            marker={
                "color": FIELD[name], "opacity": [_SET if bit == "1" else _CLEAR for bit in text],
                "line": {"color": "white", "width": 1.5},
            },
            hovertemplate="%{hovertext}<extra></extra>",
        )  # fmt: skip


def _ink(field: str, bit: str) -> str:
    return INK if bit == "0" or field in ("mantissa", "dot") else "white"


def _width(row: Row, *names: str) -> int:
    return sum(len(bits) for name, bits in row["fields"] if name in names)


def _add_outcomes(figure: go.Figure, rows: Sequence[Row]) -> None:
    """Code, value and error as text, right of the mantissa's bits, and the heads of the columns."""
    # FP32's mantissa needs the room, and its error is none.
    told = [row for row in rows if _width(row, "mantissa", "integer") < _CODE]
    error_colors = [GRAY if row["error"] == "exact" else VERMILLION for row in told]
    for x, key, color in ((_CODE, "code", GRAY), (_VALUE, "value", INK), (_ERROR, "error", error_colors)):
        figure.add_scatter(
            mode="text", x=[x] * len(told), y=[row["format"] for row in told],
            text=[row[key] for row in told], textposition="middle right",
            textfont={"size": 13, "color": color}, hoverinfo="skip", showlegend=False, cliponaxis=False,
            row=1, col=1,
        )  # fmt: skip
    head = {"yref": "y domain", "y": 1, "yanchor": "bottom", "showarrow": False, "font": {"color": GRAY}}
    heads = [
        {"x": x, "xref": "x", "text": text, "xanchor": anchor, **head}
        for x, text, anchor in (
            (-0.7, "range", "right"), (-0.3, "precision", "left"), (_CODE, "code", "left"),
            (_VALUE, "stored", "left"), (_ERROR, "error", "left"),
        )
    ]  # fmt: skip
    heads.append({"x": 0.5, "xref": "x2", "text": "◆ number, ● stored, in its gap", **head})
    figure.update_layout(annotations=heads)


def _add_gaps(figure: go.Figure, rows: Sequence[Row]) -> None:
    lanes = [row["format"] for row in rows]
    ends: list[tuple[float | None, str | None]] = []
    for lane in lanes:
        ends += [(0, lane), (0.5, lane), (1, lane), (None, None)]
    shared = {"showlegend": False, "cliponaxis": False, "row": 1, "col": 2}
    figure.add_scatter(
        mode="lines+markers", x=[x for x, _ in ends], y=[lane for _, lane in ends], hoverinfo="skip",
        line={"color": PALE, "width": 1.5}, marker={"symbol": "line-ns", "size": 9, "line_width": 1.5,
        "line_color": PALE}, **shared,
    )  # fmt: skip
    for key, x, anchor in (("below", -0.1, "middle left"), ("above", 1.1, "middle right")):
        figure.add_scatter(
            mode="text", x=[x] * len(rows), y=lanes, text=[row[key] for row in rows], textposition=anchor,
            textfont={"size": 12, "color": GRAY}, hoverinfo="skip", **shared,
        )  # fmt: skip
    stored = [row for row in rows if row["goes_to"] is not None]
    figure.add_scatter(
        mode="markers", x=[row["goes_to"] for row in stored], y=[row["format"] for row in stored],
        marker={"color": INK, "size": 11}, hovertext=[row["value"] for row in stored],
        hovertemplate="%{y} stores %{hovertext}<extra></extra>", **shared,
    )  # fmt: skip
    figure.add_scatter(
        mode="markers", x=[min(row["position"], 1.0) for row in rows], y=lanes,
        marker={"symbol": "diamond", "color": VERMILLION, "size": 9, "line": {"color": "white", "width": 1}},
        hovertext=[f"{row['position']:.2f} of the gap" for row in rows],
        hovertemplate="%{y}: at %{hovertext}<extra></extra>", **shared,
    )  # fmt: skip


def _say_what_is_outside(figure: go.Figure, rows: Sequence[Row], reach: float) -> None:
    for lane in dict.fromkeys(row["format"] for row in rows):
        largest = max(row["value"] for row in rows if row["format"] == lane)
        if largest > reach:
            figure.add_annotation(
                x=1, xref="paper", y=lane, text=f"→ {largest:,g}", showarrow=False, xanchor="left", xshift=4,
                font={"size": 12, "color": GRAY},
            )  # fmt: skip
    figure.update_layout(margin_r=84)
