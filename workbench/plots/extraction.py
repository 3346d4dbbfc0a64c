"""Extraction and its detection: queries against accuracy, ROC, delay, p-values, evidence, defences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, GRAY, group_colors

Row = Mapping[str, Any]
Floats = NDArray[np.float64]
LEAST_RATE = 1e-3


def queries_figure(rows: Sequence[Row], levels: Mapping[str, float], title: str) -> go.Figure:
    """A student's accuracy against the queries it paid for; bars from the worst to the best seed.

    rows: {"client", "queries", "value", "low", "high"}; levels: horizontal lines, by name.
    """
    figure = go.Figure()
    for client, color in group_colors(row["client"] for row in rows).items():
        mine = sorted((row for row in rows if row["client"] == client), key=lambda row: row["queries"])
        figure.add_scatter(
            name=client, mode="lines+markers", line_color=color, x=[row["queries"] for row in mine],
            y=[row["value"] for row in mine], error_y=_bars(mine),
        )  # fmt: skip
    ends = [min(row["queries"] for row in rows), max(row["queries"] for row in rows)]
    for (name, value), dash in zip(levels.items(), ("solid", "dot"), strict=False):
        figure.add_scatter(
            name=name, mode="lines", line={"color": BLACK, "dash": dash, "width": 1.5}, x=ends, y=[value] * 2
        )
    figure.update_xaxes(title="queries", type="log", tickvals=sorted({row["queries"] for row in rows}))
    figure.update_yaxes(title="held-out accuracy (mean of domains)", range=[0, 1.04])
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.25, "yanchor": "top"})


def roc_figure(rows: Sequence[Row]) -> go.Figure:
    """Attack accounts caught against honest accounts stopped, a panel for each set of attacks.

    rows: {"attacks", "detector", "false", "true"}: arrays from 0 to 1.
    """
    panels = list(dict.fromkeys(row["attacks"] for row in rows))
    figure = make_subplots(1, len(panels), shared_yaxes=True, subplot_titles=panels, horizontal_spacing=0.05)
    colors = group_colors(row["detector"] for row in rows)
    for row in rows:
        column = panels.index(row["attacks"]) + 1
        # A log has thousands of thresholds; points closer than this cannot be seen apart.
        false, true = np.unique([np.round(row["false"], 3), np.round(row["true"], 2)], axis=1)
        figure.add_scatter(
            name=row["detector"], legendgroup=row["detector"], showlegend=column == 1, mode="lines",
            line={"color": colors[row["detector"]], "shape": "hv"},
            x=np.maximum(false, LEAST_RATE), y=true, row=1, col=column,
        )  # fmt: skip
    figure.update_xaxes(
        title="honest accounts stopped (share)", type="log", range=[-3, 0],
        tickvals=[0.001, 0.01, 0.1, 1], ticktext=["0.1 %", "1 %", "10 %", "100 %"],
    )  # fmt: skip
    figure.update_yaxes(title="attack accounts caught (share)", range=[0, 1.03], col=1)
    return figure.update_layout(
        template="workbench", title="What a detector catches, and whom it stops", margin={"t": 84},
        legend={"y": -0.25, "yanchor": "top"},
    )  # fmt: skip


def auroc_figure(rows: Sequence[Row]) -> go.Figure:
    """The area under the ROC of each style of attack, with intervals; a detector a colour.

    rows: {"style", "detector", "value", "low", "high"}.
    """
    styles = list(dict.fromkeys(row["style"] for row in rows))[::-1]
    colors = group_colors(row["detector"] for row in rows)
    figure = go.Figure()
    for number, (detector, color) in enumerate(colors.items()):
        mine = [row for row in rows if row["detector"] == detector]
        shift = 0.6 * (0.5 - (number + 0.5) / len(colors))
        figure.add_scatter(
            name=detector, mode="markers", marker={"color": color, "size": 8},
            x=[row["value"] for row in mine], y=[styles.index(row["style"]) + shift for row in mine],
            error_x=_bars(mine),
        )  # fmt: skip
    figure.add_vline(x=0.5, line={"color": GRAY, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="area under the ROC (0.5 is guessing)", range=[0.4, 1.02])
    figure.update_yaxes(tickvals=list(range(len(styles))), ticktext=styles, showgrid=False)
    return figure.update_layout(
        template="workbench",
        title="Attack accounts against honest ones",
        legend={"y": -0.2, "yanchor": "top"},
    )


def scores_figure(honest: Floats, campaign: Floats, threshold: float, title: str) -> go.Figure:
    """How suspicious the accounts of a campaign look beside honest ones, and where the alarm stands."""
    figure = go.Figure()
    step = max(float(max(honest.max(), campaign.max())), threshold) / 30
    colors = group_colors(["honest", "the campaign"])
    for name, own in (("honest", honest), ("the campaign", campaign)):
        figure.add_histogram(
            name=name, x=own, histnorm="probability", xbins={"start": 0, "size": step}, opacity=0.7,
            marker_color=colors[name],
        )  # fmt: skip
    figure.add_vline(x=threshold, line={"color": BLACK, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="suspicion (nats)").update_yaxes(title="accounts (share)")
    return figure.update_layout(template="workbench", title=title, barmode="overlay")


def delay_figure(rows: Sequence[Row]) -> go.Figure:
    """How much of its harvest each campaign had when it was noticed; a cross where it never was.

    rows: {"style", "day", "leaked"}.
    """
    styles = list(dict.fromkeys(row["style"] for row in rows))[::-1]
    figure = go.Figure()
    for name, symbol, color, is_caught in (
        ("noticed", "circle", group_colors(["noticed"])["noticed"], True),
        ("never noticed", "x", BLACK, False),
    ):
        mine = [row for row in rows if np.isfinite(row["day"]) == is_caught]
        counts = dict.fromkeys(styles, 0)
        y = []
        for row in mine:
            y.append(styles.index(row["style"]) + 0.09 * (counts[row["style"]] - 2.5))
            counts[row["style"]] += 1
        figure.add_scatter(
            name=name, mode="markers", marker={"symbol": symbol, "color": color, "size": 9}, y=y,
            x=[row["leaked"] for row in mine],
            hovertext=[f"{row['style']}, day {row['day']:g}" for row in mine], hoverinfo="text+x",
        )  # fmt: skip
    figure.update_xaxes(title="harvest taken until then (share of 14 days')", range=[0, 1.05])
    figure.update_yaxes(tickvals=list(range(len(styles))), ticktext=styles, showgrid=False)
    return figure.update_layout(template="workbench", title="How much is gone when a campaign is noticed")


def calibration_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """The share of p-values at or below each level; on the diagonal they mean what they say.

    rows: {"test", "p"}: a list of p-values each.
    """
    figure = go.Figure()
    figure.add_scatter(
        name="uniform", mode="lines", line={"color": BLACK, "dash": "dot", "width": 1.5}, x=[0, 1], y=[0, 1]
    )
    for test, color in group_colors(row["test"] for row in rows).items():
        own = np.sort(np.concatenate([row["p"] for row in rows if row["test"] == test]))
        figure.add_scatter(
            name=test, mode="lines", line={"color": color, "shape": "hv"}, x=[0, *own, 1],
            y=[0, *np.arange(1, len(own) + 1) / len(own), 1],
        )  # fmt: skip
    figure.update_xaxes(title="p-value", range=[0, 1])
    figure.update_yaxes(title="share of tests at or below", range=[0, 1.02])
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.2, "yanchor": "top"})


def evidence_figure(rows: Sequence[Row], axis: str, title: str, level: float | None = None) -> go.Figure:
    """One number for each student, a row for each kind of student, a dot for each seed; colour is the test.

    rows: {"student", "test", "value"}; level: a dotted line that a finding has to pass.
    """
    students = list(dict.fromkeys(row["student"] for row in rows))[::-1]
    colors = group_colors(row["test"] for row in rows)
    figure = go.Figure()
    for number, (test, color) in enumerate(colors.items()):
        mine = [row for row in rows if row["test"] == test]
        shift = 0.5 * (0.5 - (number + 0.5) / len(colors))
        figure.add_scatter(
            name=test, mode="markers", marker={"color": color, "size": 9}, showlegend=len(colors) > 1,
            x=[row["value"] for row in mine], y=[students.index(row["student"]) + shift for row in mine],
        )  # fmt: skip
    if level is not None:
        figure.add_vline(x=level, line={"color": GRAY, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title=axis).update_yaxes(
        tickvals=list(range(len(students))), ticktext=students, showgrid=False
    )
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.2, "yanchor": "top"})


def defence_figure(rows: Sequence[Row]) -> go.Figure:
    """What a student gets against what honest users keep; bars from the worst to the best seed.

    rows: {"reply", "kept", "value", "low", "high"}.
    """
    figure = go.Figure()
    figure.add_scatter(
        mode="markers+text", showlegend=False, x=[row["kept"] for row in rows],
        y=[row["value"] for row in rows], text=[row["reply"] for row in rows], error_y=_bars(rows),
        textposition=["middle left" if row["kept"] > 0.5 else "middle right" for row in rows],
        marker={"size": 11, "color": group_colors(["reply"])["reply"]},
    )  # fmt: skip
    figure.update_xaxes(title="steps that users see and that are right (share)", range=[-0.05, 1.05])
    figure.update_yaxes(title="student's held-out accuracy", range=[0, 1.04])
    return figure.update_layout(template="workbench", title="What an interface hides, from clients and users")


def _bars(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "array": [row["high"] - row["value"] for row in rows],
        "arrayminus": [row["value"] - row["low"] for row in rows],
    }
