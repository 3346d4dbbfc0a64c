"""How sure a rating from a few contests is."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.plots.template import GRAY, PALE, PRINTED, SIMULATED, group_colors


def rating_error_figure(
    spreads: Mapping[str, float], contests: int, printed_lead: float, longest: int = 60
) -> go.Figure:
    """Half the 95% interval of a mean over contests, one line a quantity, and the printed lead.

    spreads: what is averaged -> its standard deviation from contest to contest (rating points).
    """
    figure = go.Figure(
        layout={"template": "workbench", "title": "Uncertainty of a rating against the number of contests"}
    )
    counts: Sequence[int] = range(1, longest + 1)
    for name, color in group_colors(spreads).items():
        figure.add_scatter(
            name=name,
            mode="lines",
            x=list(counts),
            y=[1.96 * spreads[name] / n**0.5 for n in counts],
            line={"color": color, **SIMULATED},
            hovertemplate="%{x} contests: ± %{y:.0f} points<extra></extra>",
        )
    figure.add_scatter(
        name="printed lead of Pro over Flash",
        mode="markers",
        x=[contests],
        y=[printed_lead],
        marker={"color": GRAY, **PRINTED},
        hovertemplate="%{y:.0f} points<extra></extra>",
    )
    figure.add_vline(x=contests, line={"color": PALE, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title=f"contests (dotted: the report's {contests})", range=[0, longest])
    return figure.update_yaxes(title="± rating points, 95%", rangemode="tozero")


def tries_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """How likely the first success comes after so many failures, one group of bars a way of trying.

    rows: {"way", "failures", "chance"}; "failures" is a number, or "never".
    """
    figure = go.Figure(
        layout={"template": "workbench", "title": "Failures before the first success", "barmode": "group"}
    )
    for way, color in group_colors(row["way"] for row in rows).items():
        mine = [row for row in rows if row["way"] == way]
        figure.add_bar(
            name=way,
            x=[str(row["failures"]) for row in mine],
            y=[100 * row["chance"] for row in mine],
            marker_color=color,
            hovertemplate="%{x} failures: %{y:.1f}%<extra></extra>",
        )
    figure.update_xaxes(title="failures before the first success", type="category")
    return figure.update_yaxes(title="chance (%)")
