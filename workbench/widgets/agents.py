"""Set the price of a token and see which effort it pays for; step through a conversation with a tool."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.agents import EFFORT, frontier_figure, transcript_figure
from workbench.widgets.explorer import Explorer

Row = Mapping[str, Any]


def price_figure(rows: Sequence[Row], token_price: float, problem: int) -> go.Figure:
    """The first seed's efforts, the line of equal worth at a price, and what each wrote to one problem.

    rows: those of `plots.agents.frontier_figure`, the efforts' with "traces": {"question", "text", "tokens",
    "is_right"}.
    """
    mine = [row for row in rows if row["seed"] == rows[0]["seed"]]
    efforts = sorted(
        (row for row in mine if row["effort"] in EFFORT), key=lambda row: list(EFFORT).index(row["effort"])
    )
    best = max(efforts, key=lambda row: row["accuracy"] - token_price * row["tokens"])
    above = frontier_figure(mine, price=token_price)
    figure = make_subplots(
        2, 1, specs=[[{"type": "xy"}], [{"type": "domain"}]], row_heights=[0.6, 0.4], vertical_spacing=0.16
    )
    figure.add_traces(above.data, rows=1, cols=1)
    figure.update_xaxes(above.layout.xaxis.to_plotly_json())
    figure.update_yaxes(above.layout.yaxis.to_plotly_json())
    traces = [row["traces"][problem] for row in efforts]
    columns = [
        [f"<b>{r['effort']}</b>" if r is best else r["effort"] for r in efforts],
        [trace["text"].replace("<", "&lt;").replace(">", "&gt;") for trace in traces],
        [trace["tokens"] for trace in traces],
        ["right" if trace["is_right"] else "wrong" for trace in traces],
        [f"{trace['is_right'] - token_price * trace['tokens']:.2f}" for trace in traces],
    ]
    figure.add_table(
        columnwidth=[1.2, 7, 1, 1, 1.2],
        header={
            "values": ["effort", f"answer to: {traces[0]['question']}", "tokens", "rule", "worth"],
            "align": "left",
            "height": 28,
        },
        cells={"values": columns, "align": "left", "height": 28},
        row=2,
        col=1,
    )
    return figure.update_layout(
        template="workbench",
        height=640,
        title=f"A token costs {token_price:.3f}: {best['effort']} is worth most",
    )


def price_explorer(rows: Sequence[Row], picture: str | None = None) -> Explorer:
    """Sliders for the price of a token and for the problem."""
    last = len(next(row["traces"] for row in rows if "traces" in row)) - 1
    controls = {
        "token_price": ipywidgets.FloatSlider(0.045, min=0.0, max=0.15, step=0.005, readout_format=".3f"),
        "problem": ipywidgets.IntSlider(2, 0, last),
    }
    return Explorer(partial(price_figure, rows), controls, picture=picture, title="What is a token worth?")


def transcript_explorer(rows: Sequence[Row], picture: str | None = None) -> Explorer:
    """Sliders for the conversation and for how far it is shown."""
    controls = {
        "talk": ipywidgets.IntSlider(0, 0, max(row["talk"] for row in rows)),
        "turn": ipywidgets.IntSlider(5, 1, max(row["turn"] for row in rows)),
    }
    return Explorer(partial(transcript_figure, rows), controls, picture=picture, title="Step through a call")
