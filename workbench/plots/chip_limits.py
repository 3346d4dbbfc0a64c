"""Figures of many kernels on many chips: rooflines, saw-teeth, memory levels, validation, policy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, GRAY, GRID, INK, PALE, SIMULATED, VENDOR, group_colors
from workbench.units import KIB, MIB, TFLOP

Row = Mapping[str, Any]
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "hexagon", "x")


def roofline_figure(
    points: Sequence[Row], roofs: Sequence[Row], title: str, *, columns: int = 4, height: int = 760
) -> go.Figure:
    """Operations under the roof of each chip: FLOP per byte against FLOP/s.

    points: {"chip", "name", "part", "flop_per_byte", "flop_per_s", "low", "high"}; roofs: {"chip", "format",
    "flop_per_s", "memory_byte_per_s"}. The bar of a point goes from its lower to its upper bound.
    """
    chips = list(dict.fromkeys(row["chip"] for row in roofs))
    columns = min(columns, len(chips))
    lines = -(-len(chips) // columns)
    figure = make_subplots(
        rows=lines, cols=columns, subplot_titles=chips, shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.02, vertical_spacing=0.09 if lines > 1 else 0.0,
    )  # fmt: skip
    colors = group_colors(row["part"] for row in points)
    left, right = min(r["flop_per_byte"] for r in points) / 2, max(r["flop_per_byte"] for r in points) * 30
    for number, chip in enumerate(chips):
        at = {"row": number // columns + 1, "col": number % columns + 1}
        for roof in (r for r in roofs if r["chip"] == chip):
            bandwidth, peak = roof["memory_byte_per_s"], roof["flop_per_s"]
            ridge = min(max(peak / bandwidth, left), right)
            figure.add_scatter(
                x=[left, ridge, right], y=[min(left * bandwidth, peak) / TFLOP, peak / TFLOP, peak / TFLOP],
                mode="lines", line={"color": PALE, "width": 1.8}, showlegend=False,
                hovertemplate=f"{roof['format']}: {peak / TFLOP:,.0f} TFLOP/s<extra>{chip}</extra>", **at,
            )  # fmt: skip
            figure.add_scatter(
                x=[right], y=[peak / TFLOP], mode="text", text=["&nbsp;" + roof["format"]],
                textposition="middle right", cliponaxis=False, textfont={"size": 11, "color": GRAY},
                showlegend=False, hoverinfo="skip", **at,
            )  # fmt: skip
        for i, (part, color) in enumerate(colors.items()):
            mine = [p for p in points if p["chip"] == chip and p["part"] == part]
            rate = [p["flop_per_s"] / TFLOP for p in mine]
            edge = {"width": 1, "color": "white"}
            figure.add_scatter(
                name=part, legendgroup=part, showlegend=not number, mode="markers",
                marker={"color": color, "size": 9, "symbol": _SYMBOLS[i], "line": edge},
                x=[p["flop_per_byte"] for p in mine], y=rate, text=[p["name"] for p in mine],
                error_y={"array": [p["high"] / TFLOP - r for p, r in zip(mine, rate, strict=True)],
                         "arrayminus": [r - p["low"] / TFLOP for p, r in zip(mine, rate, strict=True)],
                         "color": color, "thickness": 1, "width": 0},
                hovertemplate="%{text}: %{x:.3g} FLOP/byte, %{y:.3g} TFLOP/s<extra>" + chip + "</extra>",
                **at,
            )  # fmt: skip
    # Room for the names of formats, to the right of their ceilings.
    figure.update_xaxes(type="log", dtick=1, range=[math.log10(left), math.log10(right) + 0.95])
    low, high = min(p["low"] for p in points), max(roof["flop_per_s"] for roof in roofs)
    figure.update_yaxes(type="log", dtick=1, range=[math.log10(end / TFLOP) for end in (low / 2, high * 2)])
    for column in range(columns):
        last = (len(chips) - 1 - column) // columns + 1
        figure.update_xaxes(title="FLOP per byte", showticklabels=True, row=last, col=column + 1)
    for line in range(lines):
        figure.update_yaxes(title="TFLOP/s", row=line + 1, col=1)
    return figure.update_layout(
        template="workbench", title=title, height=height, margin={"t": 130}, legend={"y": 1.06}
    )


def sawtooth_figure(curves: Sequence[Row], best: Sequence[Row], title: str) -> go.Figure:
    """Share of the peak against tokens: every tiling alone (thin), and the quickest at each size (thick).

    curves: {"chip", "tiling", "m", "share"}, m and share being arrays; best: {"chip", "m", "share", "low",
    "high", "is_uncertain"}.
    """
    chips = [row["chip"] for row in best]
    figure = make_subplots(
        rows=1, cols=len(chips), shared_yaxes=True, subplot_titles=chips, horizontal_spacing=0.03
    )
    for number, row in enumerate(best, start=1):
        mine = [curve for curve in curves if curve["chip"] == row["chip"]]
        for curve in mine:
            figure.add_scatter(
                x=curve["m"], y=100 * curve["share"], mode="lines",
                showlegend=number == 1 and curve is mine[0], name="one tiling alone", legendgroup="tiling",
                line={"color": PALE, "width": 0.9},
                hovertemplate=f"{curve['tiling']}: %{{y:.0f}}%<extra></extra>", row=1, col=number,
            )  # fmt: skip
        m = list(row["m"])
        figure.add_scatter(
            x=m + m[::-1], y=[*(100 * row["low"]), *(100 * row["high"])[::-1]], fill="toself", mode="none",
            fillcolor="rgba(0,114,178,0.13)", hoverinfo="skip", name="lower to upper bound",
            showlegend=number == 1, row=1, col=number,
        )  # fmt: skip
        figure.add_scatter(
            x=m, y=100 * row["share"], mode="lines", name="the quickest tiling (expected)",
            line={"color": VENDOR["cambricon"], "width": 2.4, **SIMULATED}, showlegend=number == 1,
            hovertemplate="%{x} tokens: %{y:.0f}%<extra></extra>", row=1, col=number,
        )  # fmt: skip
    figure.update_xaxes(title="tokens (rows of the product)")
    figure.update_yaxes(title="share of the published peak (%)", rangemode="tozero", range=[0, 100], col=1)
    return figure.update_layout(template="workbench", title=title, margin={"t": 124}, legend={"y": 1.09})


def levels_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Bytes of each level of memory on one device; a bar where only a band is known.

    rows: {"chip", "level", "bytes", "low", "high"}; bytes is None where no value is published.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    chips = list(dict.fromkeys(row["chip"] for row in rows))
    places: dict[tuple[str, str], str] = {}
    for chip in chips:
        here = [row for row in rows if row["chip"] == chip]
        places |= {(chip, here[i]["level"]): place for i, place in _apart([_middle(r) for r in here]).items()}
    for i, (level, color) in enumerate(group_colors(row["level"] for row in rows).items()):
        mine = [row for row in rows if row["level"] == level]
        middle = [_middle(row) for row in mine]
        up = [(row["high"] - value) / MIB for row, value in zip(mine, middle, strict=True)]
        down = [(value - row["low"]) / MIB for row, value in zip(mine, middle, strict=True)]
        figure.add_scatter(
            name=level, mode="markers+text",
            x=[value / MIB for value in middle], y=[row["chip"] for row in mine],
            marker={"color": [color if row["bytes"] else "white" for row in mine], "size": 13,
                    "symbol": _SYMBOLS[i], "line": {"color": color, "width": 2}},
            error_x={"array": up, "arrayminus": down, "color": color, "thickness": 5, "width": 0},
            text=[size_text(value) if row["bytes"] else "?" for row, value in zip(mine, middle, strict=True)],
            textposition=[places[row["chip"], level] for row in mine], textfont={"size": 11, "color": INK},
            hovertemplate="%{y}: %{text}<extra>" + level + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="bytes on one device, all cores together (MiB)", type="log", dtick=1)
    return figure.update_yaxes(categoryorder="array", categoryarray=chips[::-1], showgrid=True)


def _middle(row: Row) -> float:
    return row["bytes"] or math.sqrt(row["low"] * row["high"])


def _apart(values: Sequence[float], decades: float = 0.3) -> dict[int, str]:
    """Where the text of each mark on one logarithmic line stands: above and below in turn.

    Two texts on the same side that are fewer decades apart turn away from each other.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    turned = dict.fromkeys(order, "center")
    for first, second in zip(order, order[2:], strict=False):
        if math.log10(values[second] / values[first]) < decades:
            turned |= {first: "left", second: "right"}
    return {i: f"{('bottom', 'top')[place % 2]} {turned[i]}" for place, i in enumerate(order)}


def size_text(size: float) -> str:
    """Bytes in the unit that a person would choose."""
    for unit, name in ((KIB**3, "GiB"), (MIB, "MiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / KIB:.3g} KiB"


def validation_figure(points: Sequence[Row], errors: Sequence[Row], title: str, *, aim: float) -> go.Figure:
    """Left: predicted against measured. Right: errors by kernel, in sample and with the GPU left out.

    points: {"kernel", "label", "measured_s", "predicted_s"}; errors: {"kernel", "rows", "how", "median",
    "p90"}; aim: the error wished for, a band and a line.
    """
    figure = make_subplots(rows=1, cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.2)
    for kernel, color in group_colors(row["kernel"] for row in points).items():
        mine = [row for row in points if row["kernel"] == kernel]
        figure.add_scattergl(
            name=kernel, mode="markers", x=[row["measured_s"] * 1e6 for row in mine],
            y=[row["predicted_s"] * 1e6 for row in mine], text=[row["label"] for row in mine],
            marker={"color": color, "size": 5, "opacity": 0.6},
            hovertemplate="%{text}: measured %{x:.1f} µs, predicted %{y:.1f} µs<extra>" + kernel + "</extra>",
            row=1, col=1,
        )  # fmt: skip
    ends = [
        min(row["measured_s"] for row in points) * 0.7e6,
        max(row["measured_s"] for row in points) * 1.4e6,
    ]
    for factor, dash in ((1.0, "solid"), (1 + aim, "dot"), (1 - aim, "dot")):
        figure.add_scatter(
            x=ends, y=[factor * end for end in ends], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": BLACK, "width": 1.2, "dash": dash}, row=1, col=1,
        )  # fmt: skip
    ways = list(dict.fromkeys(row["how"] for row in errors))
    for i, how in enumerate(ways):
        mine = [row for row in errors if row["how"] == how]
        figure.add_scatter(
            name=how, mode="markers", x=[100 * row["median"] for row in mine],
            y=[f"{row['kernel']} ({row['rows']})" for row in mine],
            marker={"color": "white" if i else INK, "size": 10, "symbol": _SYMBOLS[i],
                    "line": {"color": INK, "width": 2}},
            error_x={"array": [100 * (row["p90"] - row["median"]) for row in mine], "symmetric": False,
                     "arrayminus": [0] * len(mine), "color": PALE, "thickness": 2 - i / 2, "width": 4},
            hovertemplate="%{y}: median %{x:.1f}%<extra>" + how + "</extra>", row=1, col=2,
        )  # fmt: skip
    figure.add_vline(x=100 * aim, line={"color": BLACK, "dash": "dot", "width": 1.2}, row=1, col=2)
    figure.update_xaxes(type="log", dtick=1, title="measured (µs)", col=1)
    figure.update_yaxes(type="log", dtick=1, title="predicted (µs)", col=1)
    figure.update_xaxes(
        title="absolute error: median, whisker to the 90th percentile (%)", rangemode="tozero", col=2
    )
    figure.update_yaxes(autorange="reversed", col=2)
    return figure.update_layout(
        template="workbench", title=title, height=560, margin={"t": 70, "b": 150},
        legend={"y": -0.2, "yanchor": "top"},
    )  # fmt: skip


def category_figure(
    rows: Sequence[Row], colors: Mapping[str, str], title: str, *, x: str, y: str, height: int = 480
) -> go.Figure:
    """A table with coloured cells. rows: {x, y, "category", "text"} and perhaps "hover"."""
    columns, lines = (list(dict.fromkeys(row[key] for row in rows)) for key in (x, y))
    cell = {(row[y], row[x]): row for row in rows}
    names = [name for name in colors if name in {row["category"] for row in rows}]
    count = len(names)
    steps = [(edge / count, colors[name]) for i, name in enumerate(names) for edge in (i, i + 1)]

    def grid(value: Any) -> list[list[Any]]:
        found = [[cell.get((line, column)) for column in columns] for line in lines]
        return [[None if row is None else value(row) for row in line] for line in found]

    figure = go.Figure(layout={"template": "workbench", "title": title})
    figure.add_heatmap(
        x=columns, y=lines, z=grid(lambda row: names.index(row["category"]) + 0.5), zmin=0, zmax=count,
        colorscale=steps, showscale=False, xgap=2, ygap=2, opacity=0.55, text=grid(lambda row: row["text"]),
        texttemplate="%{text}", textfont={"size": 12, "color": INK},
        hovertext=grid(lambda row: row.get("hover", row["category"])),
        hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip
    for name in names:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=name,
            marker={"symbol": "square", "size": 13, "color": colors[name], "opacity": 0.55},
        )  # fmt: skip
    figure.update_xaxes(side="bottom", showgrid=False, title="")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure.update_layout(height=height)


def policy_figure(rows: Sequence[Row], limits: Sequence[Row], title: str) -> go.Figure:
    """Total processing power against performance density, with the areas that a rule covers.

    rows: {"chip", "vendor", "tpp", "performance_density", "outcome"}, where an unknown number leaves a chip
    out; limits: {"text", "tpp", "density"}, the lower left corners of the areas.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for limit in limits:
        figure.add_shape(
            type="rect", x0=limit["tpp"], x1=1e6, y0=limit["density"], y1=1e3,
            line={"width": 1, "color": GRAY}, fillcolor=GRID, opacity=0.6, layer="below",
        )  # fmt: skip
    known = _stacked([row for row in rows if row["tpp"] and row["performance_density"]])
    for i, vendor in enumerate(dict.fromkeys(row["vendor"] for row in known)):
        mine = [row for row in known if row["vendor"] == vendor]
        figure.add_scatter(
            name=vendor, mode="markers+text", x=[row["tpp"] for row in mine],
            y=[row["performance_density"] for row in mine], text=[row["chip"] for row in mine],
            textposition="bottom center" if i % 2 else "top center", textfont={"size": 11},
            marker={"color": VENDOR[vendor.lower()], "size": 11},
            customdata=[row["outcome"] for row in mine],
            hovertemplate="%{text}: TPP %{x:,.0f}, density %{y:.1f}: %{customdata}<extra></extra>",
        )  # fmt: skip
    for limit in limits:
        figure.add_annotation(  # on a logarithmic axis places are logarithms
            x=math.log10(limit["tpp"]), y=math.log10(limit["density"]), text=limit["text"], showarrow=False,
            xanchor="left", yanchor="bottom", xshift=4, yshift=3, font={"size": 12, "color": GRAY},
        )  # fmt: skip
    x, y = ([row[key] for row in known] for key in ("tpp", "performance_density"))
    figure.update_xaxes(
        title="total processing power (dense TOPS × bits)", type="log", tickformat=",",
        range=[math.log10(1300), math.log10(max(x) * 1.5)],
        tickvals=[1600, 2400, 4800, 10_000, 21_000, 50_000],
    )  # fmt: skip
    return figure.update_yaxes(
        title="performance density (TPP per mm² of die)", type="log", tickvals=[1, 2, 5.92, 10, 20, 50],
        range=[0, math.log10(max(y) * 1.8)],
    )  # fmt: skip


def _stacked(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Chips with the same numbers as one row that names all of them."""
    same: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["vendor"], round(row["tpp"], -2), round(row["performance_density"], 1))
        if key in same:
            same[key]["chip"] += f", {row['chip']}"
        else:
            same[key] = dict(row)
    return list(same.values())
