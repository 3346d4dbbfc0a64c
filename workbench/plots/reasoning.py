"""Reinforcement learning: curves of training, accuracy by stage, pass@k, lengths, and what was written."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import COLORWAY, GRAY, group_colors

Row = Mapping[str, Any]

OPACITY = 0.85


def curves_figure(rows: Sequence[Row], panels: Mapping[str, str], title: str) -> go.Figure:
    """Numbers of every training step, a panel each; one colour a run, one line a seed.

    rows: {"run", "seed", "step", and every field of panels}. panels: field -> title of its axis.
    """
    figure = make_subplots(1, len(panels), horizontal_spacing=0.3 / len(panels))
    for run, color in group_colors(row["run"] for row in rows).items():
        seeds = dict.fromkeys(row["seed"] for row in rows if row["run"] == run)
        for number, seed in enumerate(seeds):
            mine = sorted((r for r in rows if (r["run"], r["seed"]) == (run, seed)), key=lambda r: r["step"])
            for column, field in enumerate(panels, start=1):
                figure.add_scatter(
                    name=run, legendgroup=run, showlegend=number == 0 and column == 1, mode="lines",
                    line={"color": color, "width": 2}, opacity=OPACITY,
                    x=[row["step"] for row in mine], y=[row[field] for row in mine], row=1, col=column,
                    hovertemplate=f"{run}, seed {seed}, step %{{x}}: %{{y:.3g}}<extra></extra>",
                )  # fmt: skip
    for column, axis in enumerate(panels.values(), start=1):
        figure.update_xaxes(title="training step", col=column)
        figure.update_yaxes(title=axis, rangemode="tozero", col=column)
    return figure.update_layout(template="workbench", title=title, legend={"y": -0.2, "yanchor": "top"})


def stages_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Accuracy at each stage of a pipeline, with its interval; one colour a family, one marker a seed.

    rows: {"family", "stage", "value", "low", "high"}, stages in their order.
    """
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    families = group_colors(row["family"] for row in rows)
    figure = go.Figure()
    for number, (family, color) in enumerate(families.items()):
        mine = [row for row in rows if row["family"] == family]
        seen = dict.fromkeys(stages, 0)
        x = []
        for row in mine:  # side by side, so that no interval hides another
            x.append(
                stages.index(row["stage"])
                + 0.2 * (number - (len(families) - 1) / 2)
                + 0.04 * seen[row["stage"]]
            )
            seen[row["stage"]] += 1
        figure.add_scatter(
            name=family, mode="markers", marker={"color": color, "size": 9},
            x=x, y=[row["value"] for row in mine],
            error_y={"array": [row["high"] - row["value"] for row in mine],
                     "arrayminus": [row["value"] - row["low"] for row in mine]},
            hovertemplate=f"{family}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(tickvals=list(range(len(stages))), ticktext=stages, title="stage")
    figure.update_yaxes(title="held-out accuracy (share of answers)", range=[0, 1.03])
    return figure.update_layout(template="workbench", title=title)


def pass_at_k_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """The chance that one of k answers is right, against k; one colour a policy, one line a seed.

    rows: {"policy", "k", "value", "low", "high"}, and "seed" where there are several.
    """
    figure = _lines_with_intervals(rows, "k", "pass@%{x} = %{y:.3f}")
    figure.update_xaxes(title="answers to each problem, k", type="log", dtick=0.30103)
    figure.update_yaxes(title="pass@k (share of problems)", range=[0, 1.03])
    return figure.update_layout(template="workbench", title=title)


def within_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Accuracy of answers that must end within so many tokens; one colour a policy, one line a seed.

    rows: {"policy", "tokens", "value", "low", "high"}, and "seed" where there are several.
    """
    figure = _lines_with_intervals(rows, "tokens", "%{y:.3f} within %{x} tokens")
    caps = sorted({row["tokens"] for row in rows})
    figure.update_xaxes(title="tokens an answer may have", type="log", tickvals=caps, ticktext=caps)
    figure.update_yaxes(title="held-out accuracy (share of answers)", range=[0, 1.03])
    return figure.update_layout(template="workbench", title=title)


def _lines_with_intervals(rows: Sequence[Row], x: str, hover: str) -> go.Figure:
    figure = go.Figure()
    for policy, color in group_colors(row["policy"] for row in rows).items():
        seeds = dict.fromkeys(row.get("seed") for row in rows if row["policy"] == policy)
        for number, seed in enumerate(seeds):
            mine = sorted(
                (row for row in rows if (row["policy"], row.get("seed")) == (policy, seed)),
                key=lambda row: row[x],
            )
            figure.add_scatter(
                name=policy, legendgroup=policy, showlegend=number == 0, mode="lines+markers",
                line_color=color, opacity=OPACITY,
                x=[row[x] for row in mine], y=[row["value"] for row in mine],
                error_y={"array": [row["high"] - row["value"] for row in mine],
                         "arrayminus": [row["value"] - row["low"] for row in mine]},
                hovertemplate=f"{policy}: {hover}<extra></extra>",
            )  # fmt: skip
    return figure


def lengths_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """How often answers have each length; measured shares as bars, a law as a line.

    rows: {"series", "tokens", "share", "is_law"}.
    """
    figure = go.Figure()
    for series, color in group_colors(row["series"] for row in rows).items():
        mine = sorted((row for row in rows if row["series"] == series), key=lambda row: row["tokens"])
        x, y = [row["tokens"] for row in mine], [row["share"] for row in mine]
        if mine[0]["is_law"]:
            figure.add_scatter(
                name=series, mode="lines+markers", line={"color": GRAY, "dash": "dash"},
                marker={"color": GRAY, "size": 6}, x=x, y=y,
            )  # fmt: skip
        else:
            figure.add_bar(name=series, marker_color=color, x=x, y=y)
    figure.update_xaxes(title="length of the answer (tokens)")
    figure.update_yaxes(title="share of answers", rangemode="tozero")
    return figure.update_layout(template="workbench", title=title, barmode="group")


def traces_figure(rows: Sequence[Row], problem: int, title: str = "What the policy wrote") -> go.Figure:
    """Answers to one problem, a line each: which policy, its words, and whether the rule accepts them.

    rows: {"problem", "question", "policy", "text", "is_right"}.
    """
    mine = [row for row in rows if row["problem"] == problem]
    columns = [
        [row["policy"] for row in mine],
        [row["text"].replace("<", "&lt;").replace(">", "&gt;") for row in mine],
        ["right" if row["is_right"] else "wrong" for row in mine],
    ]
    colors = [COLORWAY[2] if row["is_right"] else COLORWAY[5] for row in mine]
    table = go.Table(
        columnwidth=[2, 9, 1],
        header={"values": ["policy", f"answer to: {mine[0]['question']}", "rule"], "align": "left"},
        cells={
            "values": columns, "align": "left", "height": 28,
            "font": {"color": [["#24292F"] * len(mine), ["#24292F"] * len(mine), colors]},
        },
    )  # fmt: skip
    return go.Figure(table).update_layout(template="workbench", title=title)
