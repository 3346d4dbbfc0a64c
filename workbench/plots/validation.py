"""Predictions beside measurements, all families on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, INK, PALE, group_colors

Row = Mapping[str, Any]
# Ratios beyond these are drawn at the edge, with their number in the hover text.
_EDGE = (0.25, 4.0)


def families_figure(points: Sequence[Row], errors: Sequence[Row], title: str) -> go.Figure:
    """Left: predicted over measured, a dot a row of a table. Right: errors, of all rows and left out.

    points: {"family", "label", "ratio", "inside"}, hollow where the measured value is outside the bounds;
    errors: {"family", "how", "rows", "median", "p90", "aim"}, aim None where nothing was wished for.
    """
    families = list(dict.fromkeys(row["family"] for row in errors))
    place = {family: i for i, family in enumerate(families)}
    colors = group_colors(families)
    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.03, shared_yaxes=True,
        subplot_titles=["every row", "median error, whisker to the 90th percentile"],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for family in families:
        mine = [row for row in points if row["family"] == family]
        spread = rng.uniform(-0.3, 0.3, len(mine))
        for is_inside, symbol in ((True, "circle"), (False, "circle-open")):
            at = [i for i, row in enumerate(mine) if row["inside"] == is_inside]
            # WebGL draws no hollow markers; those outside the bounds are few.
            draw = figure.add_scattergl if is_inside else figure.add_scatter
            draw(
                name=family, mode="markers", showlegend=False,
                x=[round(min(max(mine[i]["ratio"], _EDGE[0]), _EDGE[1]), 3) for i in at],
                y=[round(place[family] + spread[i], 2) for i in at],
                text=[f"{mine[i]['label']}: predicted {mine[i]['ratio']:.2f} of measured" for i in at],
                marker={"color": colors[family], "size": 5, "opacity": 0.7, "symbol": symbol},
                hovertemplate="%{text}<extra>" + family + "</extra>", row=1, col=1,
            )  # fmt: skip
    for x, dash in ((1.0, "solid"), (1 / 1.15, "dot"), (1.15, "dot")):
        figure.add_vline(x=x, line={"color": BLACK, "width": 1.2, "dash": dash}, row=1, col=1)
    for i, how in enumerate(dict.fromkeys(row["how"] for row in errors)):
        mine = [row for row in errors if row["how"] == how]
        figure.add_scatter(
            name=how, mode="markers", x=[100 * row["median"] for row in mine],
            y=[place[row["family"]] + 0.24 * i - 0.12 for row in mine],
            text=[f"{row['rows']} rows" for row in mine],
            marker={"color": "white" if i else INK, "size": 10, "symbol": "square" if i else "circle",
                    "line": {"color": INK, "width": 2}},
            error_x={"array": [100 * (row["p90"] - row["median"]) for row in mine], "symmetric": False,
                     "arrayminus": [0] * len(mine), "color": PALE, "thickness": 2, "width": 4},
            hovertemplate="%{text}: median %{x:.1f}%<extra>" + how + "</extra>", row=1, col=2,
        )  # fmt: skip
    aims = {row["family"]: row["aim"] for row in errors if row["aim"] is not None}
    figure.add_scatter(
        name="aim", mode="markers", x=[100 * aim for aim in aims.values()], y=[place[f] for f in aims],
        marker={"symbol": "line-ns", "size": 30, "line": {"color": BLACK, "width": 1.5}},
        hovertemplate="aim: %{x:.0f}%<extra></extra>", row=1, col=2,
    )  # fmt: skip
    count = {family: sum(row["family"] == family for row in points) for family in families}
    figure.update_yaxes(
        tickvals=list(place.values()), ticktext=[f"{f} ({count[f]})" for f in families], autorange="reversed"
    )
    figure.update_xaxes(
        title="predicted / measured", type="log", tickvals=[0.25, 0.5, 0.8, 1, 1.25, 2, 4], col=1,
        range=[np.log10(_EDGE[0]) - 0.02, np.log10(_EDGE[1]) + 0.02],
    )  # fmt: skip
    figure.update_xaxes(title="absolute error (%)", rangemode="tozero", col=2)
    return figure.update_layout(
        template="workbench",
        title=title,
        height=90 + 62 * len(families),
        legend={"y": -0.14, "yanchor": "top"},
    )
