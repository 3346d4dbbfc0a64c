"""Distillation: noise of one token, students against teacher tokens and work, domains, and mode covering."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, COLORWAY, GRAY, group_colors

Row = Mapping[str, Any]


def noise_figure(rows: Sequence[Row]) -> go.Figure:
    """Noise of the one-token gradient over the squared true gradient; medians, quartiles as bars.

    rows: {"vocabulary", "peak", "distance", "noise", "noise_low", "noise_high"}; a panel a distance.
    """
    distances = sorted({row["distance"] for row in rows})
    titles = [f"teacher {distance:g} away" for distance in distances]
    figure = make_subplots(
        1, len(distances), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.06
    )
    for peak, color in group_colors(str(row["peak"]) for row in rows).items():
        for column, distance in enumerate(distances, start=1):
            mine = [r for r in rows if (str(r["peak"]), r["distance"]) == (peak, distance)]
            mine.sort(key=lambda row: row["vocabulary"])
            figure.add_scatter(
                name=f"logits spread {peak}", legendgroup=peak, showlegend=column == 1, line_color=color,
                mode="lines+markers", x=[row["vocabulary"] for row in mine], y=[row["noise"] for row in mine],
                error_y={"array": [row["noise_high"] - row["noise"] for row in mine],
                         "arrayminus": [row["noise"] - row["noise_low"] for row in mine]},
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="vocabulary (words)", type="log", dtick=1)
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title="variance / squared gradient", col=1)
    return figure.update_layout(
        template="workbench", title="How noisy one token's gradient is", margin={"t": 124}, legend={"y": 1.14}
    )


def learning_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Mean accuracy against teacher tokens and against work: a thick line the mean of seeds, thin ones each.

    rows: {"method", "seed", "step", "teacher_tokens", "flop", "accuracy"}.
    """
    axes = {
        "teacher_tokens": "teacher tokens, drawn or read (thousand)",
        "flop": "work, teachers included (GFLOP)",
    }
    scale = {"teacher_tokens": 1e3, "flop": 1e9}
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for method, color in group_colors(row["method"] for row in rows).items():
        mine = [row for row in rows if row["method"] == method]
        steps = sorted({row["step"] for row in mine})
        for column, field in enumerate(axes, start=1):
            for seed in dict.fromkeys(row["seed"] for row in mine):
                own = sorted((r for r in mine if r["seed"] == seed), key=lambda row: row["step"])
                figure.add_scatter(
                    legendgroup=method, showlegend=False, mode="lines", line={"color": color, "width": 1},
                    opacity=0.45, x=[r[field] / scale[field] for r in own], y=[r["accuracy"] for r in own],
                    hovertemplate=f"{method}, seed {seed}: %{{y:.3f}}<extra></extra>", row=1, col=column,
                )  # fmt: skip
            at = [[row for row in mine if row["step"] == step] for step in steps]
            figure.add_scatter(
                name=method, legendgroup=method, showlegend=column == 1, mode="lines+markers",
                line={"color": color, "width": 3}, row=1, col=column,
                x=[float(np.mean([r[field] for r in own])) / scale[field] for own in at],
                y=[float(np.mean([r["accuracy"] for r in own])) for own in at],
                hovertemplate=f"{method}, mean: %{{y:.3f}}<extra></extra>",
            )  # fmt: skip
    for column, axis in enumerate(axes.values(), start=1):
        figure.update_xaxes(title=axis, rangemode="tozero", col=column)
    figure.update_yaxes(title="held-out accuracy (mean of domains)", col=1)
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.25, "yanchor": "top"})


def domains_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Accuracy on every domain: teachers as black lines, each way of merging as a dot, bars over the seeds.

    rows: {"domain", "method", "value", "low", "high"}; the method "teachers" is the line.
    """
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != "teachers"]
    figure = go.Figure()
    for place, row in enumerate([r for r in rows if r["method"] == "teachers"]):
        x = domains.index(row["domain"])
        figure.add_scatter(
            name="its teacher", legendgroup="teachers", showlegend=place == 0, mode="lines",
            line={"color": BLACK, "width": 2}, x=[x - 0.42, x + 0.42], y=[row["value"]] * 2,
        )  # fmt: skip
    for number, (method, color) in enumerate(group_colors(methods).items()):
        mine = [row for row in rows if row["method"] == method]
        shift = 0.7 * ((number + 0.5) / len(methods) - 0.5)
        figure.add_scatter(
            name=method, mode="markers", marker={"color": GRAY if method == "base" else color, "size": 8},
            x=[domains.index(row["domain"]) + shift for row in mine], y=[row["value"] for row in mine],
            error_y={"array": [row["high"] - row["value"] for row in mine],
                     "arrayminus": [row["value"] - row["low"] for row in mine], "width": 2},
            hovertemplate=f"{method}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="domain", tickvals=list(range(len(domains))), ticktext=domains)
    figure.update_yaxes(title="held-out accuracy (share)", range=[0, 1.04])
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.25, "yanchor": "top"})


def students_figure(rows: Sequence[Row], teacher: float, title: str) -> go.Figure:
    """Accuracy of students against their active parameters: a dot a seed, a line the mean of dense ones.

    rows: {"student", "way", "seed", "active", "is_dense", "value"}; teacher: its accuracy, a line.
    """
    figure = go.Figure()
    sizes = sorted({row["active"] for row in rows})
    builds = {True: ("dense", 8, "circle"), False: ("with experts, as the teacher", 12, "diamond")}
    for way, color in group_colors(row["way"] for row in rows).items():
        mine = [row for row in rows if row["way"] == way]
        dense = sorted({row["active"] for row in mine if row["is_dense"]})
        means = [
            float(np.mean([r["value"] for r in mine if r["is_dense"] and r["active"] == n])) for n in dense
        ]
        figure.add_scatter(
            name=way, mode="lines", line={"color": color, "width": 2.5}, x=dense, y=means,
            hoverinfo="skip",
        )  # fmt: skip
        for is_dense, (_, size, symbol) in builds.items():
            own = [row for row in mine if row["is_dense"] == is_dense]
            figure.add_scatter(
                showlegend=False, mode="markers", marker={"color": color, "size": size, "symbol": symbol},
                x=[row["active"] for row in own], y=[row["value"] for row in own],
                hovertemplate=f"%{{x:,}} parameters, {way}: %{{y:.3f}}<extra></extra>",
            )  # fmt: skip
    for name, size, symbol in builds.values():  # for the legend alone
        marker = {"color": GRAY, "size": size, "symbol": symbol}
        figure.add_scatter(name=name, mode="markers", marker=marker, x=[None], y=[None])
    figure.add_scatter(
        name="teacher", mode="lines", line={"color": BLACK, "width": 1.5},
        x=[sizes[0], sizes[-1]], y=[teacher] * 2,
    )  # fmt: skip
    ticks = {"tickvals": sizes, "ticktext": [f"{size / 1e3:.0f}" for size in sizes]}
    figure.update_xaxes(title="active parameters of the student (thousand)", type="log", **ticks)
    figure.update_yaxes(title="held-out accuracy (share of answers)", range=[0, 1.04])
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.25, "yanchor": "top"})


def covering_plot(rows: Sequence[Row], title: str) -> go.Figure:
    """A teacher's distribution over words in a row, and students that cannot copy it, one line each.

    rows: {"who", "word", "p"}; the teacher is "teacher".
    """
    figure = go.Figure()
    for number, who in enumerate(dict.fromkeys(row["who"] for row in rows)):
        mine = [row for row in rows if row["who"] == who]
        x, y = [row["word"] for row in mine], [row["p"] for row in mine]
        if who == "teacher":
            figure.add_bar(name=who, x=x, y=y, marker_color="#C9CED6")
        else:
            color = COLORWAY[(number - 1) % len(COLORWAY)]
            # Students may agree: a dotted line lets the one below show through.
            dash = "dot" if number == 3 else "solid"
            figure.add_scatter(
                name=who, x=x, y=y, mode="lines", line={"color": color, "width": 3, "dash": dash}
            )
    figure.update_xaxes(title="word (number)").update_yaxes(title="probability", rangemode="tozero")
    return figure.update_layout(template="workbench", title=title, bargap=0)
