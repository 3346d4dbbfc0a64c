"""Figures of how a network is trained: what Muon does to a matrix, who holds what, rows and schedules."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, BLUE, FAMILY, GRAY, LOG_TICKS, ORANGE, VERMILLION, group_colors

Row = Mapping[str, Any]


def spectra_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Singular values of matrices, each divided by its largest, from the largest on.

    rows: {"name", "values"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for name, color in group_colors(row["name"] for row in rows).items():
        values = sorted(next(row["values"] for row in rows if row["name"] == name), reverse=True)
        figure.add_scatter(
            name=name, x=list(range(1, len(values) + 1)), y=[v / values[0] for v in values], mode="lines",
            line={"color": color}, hovertemplate="number %{x}: %{y:.3g}<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="singular value, by size")
    return figure.update_yaxes(title="size (largest = 1)", type="log", tickvals=LOG_TICKS, tickformat="~g")


def scalar_map_figure(curves: Sequence[Row], title: str) -> go.Figure:
    """Where steps send a singular value, and how far from one that is.

    curves: {"name", "sigma", "value"}.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for name, color in group_colors(curve["name"] for curve in curves).items():
        curve = next(c for c in curves if c["name"] == name)
        error = [max(abs(v - 1), 1e-16) for v in curve["value"]]
        for column, y in enumerate((curve["value"], error), start=1):
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=column == 1, x=curve["sigma"], y=y, mode="lines",
                line={"color": color, "width": 1.8}, row=1, col=column,
                hovertemplate="from %{x:.3g} to %{y:.4g}<extra>" + name + "</extra>",
            )  # fmt: skip
    figure.update_xaxes(title="singular value before", type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(title="after", range=[0, 1.25], col=1)
    figure.update_yaxes(
        title="distance from one after", type="log", exponentformat="power", range=[-7, 0.2], col=2
    )
    return figure.update_layout(template="workbench", title=title)


def steps_figure(by_step: Sequence[Sequence[float]], fast: int, title: str) -> go.Figure:
    """Singular values of one matrix before the first step and after each; the last steps pin them at one.

    by_step: the singular values at each step, in any order. fast: how many steps are steep.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for step, values in enumerate(by_step):
        figure.add_scatter(
            x=[step] * len(values), y=list(values), mode="markers", showlegend=False,
            marker={"color": GRAY if step == 0 else BLUE if step <= fast else ORANGE, "size": 5,
                    "opacity": 0.6},
            hovertemplate="after %{x} steps: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    for name, color in (("at the start", GRAY), ("steep steps", BLUE), ("pinning steps", ORANGE)):
        figure.add_scatter(name=name, x=[None], y=[None], mode="markers", marker={"color": color, "size": 9})
    figure.add_hline(y=1, line={"color": BLACK, "width": 1})
    figure.update_xaxes(title="step", dtick=1)
    return figure.update_yaxes(title="singular value", type="log", exponentformat="power", dtick=1)


def buckets_figure(rows: Sequence[Row], limit_percent: float, title: str) -> go.Figure:
    """Padding of ZeRO buckets against ranks; filled where a rank holds few matrices, hollow elsewhere.

    rows: {"model", "ranks", "padding_percent", "most_matrices", "is_few"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = sorted((row for row in rows if row["model"] == model), key=lambda row: row["ranks"])
        color = FAMILY[model]
        figure.add_scatter(
            name=model, x=[r["ranks"] for r in mine], y=[r["padding_percent"] for r in mine],
            mode="lines+markers", line={"color": color, "width": 1},
            marker={"size": 6, "color": [color if r["is_few"] else "white" for r in mine],
                    "line": {"color": color, "width": 1.5}},
            customdata=[r["most_matrices"] for r in mine],
            hovertemplate="%{x} ranks: %{y:.1f} % padding, up to %{customdata} matrices a rank"
            + f"<extra>{model}</extra>",
        )  # fmt: skip
    figure.add_hline(y=limit_percent, line={"color": VERMILLION, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(title="ranks that share the dense weights")
    return figure.update_yaxes(title="padding (% of the elements)", rangemode="tozero")


def sums_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Relative error of a sum over ranks, a line a way to take it.

    rows: {"name", "ranks", "error"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for name, color in group_colors(row["name"] for row in rows).items():
        mine = [row for row in rows if row["name"] == name]
        figure.add_scatter(
            name=name, x=[r["ranks"] for r in mine], y=[r["error"] for r in mine], mode="lines+markers",
            line={"color": color},
            hovertemplate="%{x} ranks: %{y:.2e}<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="ranks", type="log", tickvals=sorted({row["ranks"] for row in rows}))
    return figure.update_yaxes(
        title="error of the sum, relative", type="log", tickvals=LOG_TICKS, tickformat="~g"
    )


def packing_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """What two ways of packing cost against the length of a row: documents cut, and padding.

    rows: {"name", "row_tokens", "cut_percent", "padding_percent"}.
    """
    panels = {
        "cut_percent": "documents that fit but are cut (%)",
        "padding_percent": "padding (% of positions)",
    }
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for name, color in group_colors(row["name"] for row in rows).items():
        mine = [row for row in rows if row["name"] == name]
        for column, field in enumerate(panels, start=1):
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=column == 1, x=[r["row_tokens"] for r in mine],
                y=[r[field] for r in mine], mode="lines+markers", line={"color": color}, row=1, col=column,
                hovertemplate="rows of %{x} tokens: %{y:.1f} %<extra>" + name + "</extra>",
            )  # fmt: skip
    ticks = sorted({row["row_tokens"] for row in rows})
    figure.update_xaxes(title="length of a row (tokens)", type="log", tickvals=ticks, tickformat="d")
    for column, axis in enumerate(panels.values(), start=1):
        figure.update_yaxes(title=axis, rangemode="tozero", col=column)
    return figure.update_layout(template="workbench", title=title)


def schedule_figure(curves: Sequence[Row], title: str) -> go.Figure:
    """Learning rates over a run.

    curves: {"name", "steps", "rate"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for name, color in group_colors(curve["name"] for curve in curves).items():
        curve = next(c for c in curves if c["name"] == name)
        figure.add_scatter(
            name=name, x=curve["steps"], y=curve["rate"], mode="lines", line={"color": color},
            hovertemplate="step %{x:,}: %{y:.3g}<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="step", tickformat=",~s")
    return figure.update_yaxes(title="learning rate", rangemode="tozero", exponentformat="power")
