"""V4.1 beside V4: who owns what, sizes, the work of a prompt, replay, memory and drafts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    group_colors,
)
from workbench.units import BILLION, GFLOP

Row = Mapping[str, Any]

MODEL = {
    "V4-Pro": BLUE,
    "V4-Flash": SKY,
    "V4.1-Flash": VERMILLION,
    "V4.1-Flash, all layers for all tokens": ORANGE,
}


LEAST_NATS = 1e-7  # of a divergence in fp32; below it is rounding


def layer_map_figure(rows: Sequence[Row]) -> go.Figure:
    """A bar from the layer that owns something to the last that reads it.

    rows: as `workbench.model.v41.counts.layer_rows`.
    """
    figure = go.Figure(
        layout={"template": "workbench", "title": "Which layer reads whose entries and whose selection"}
    )
    places = {"draft reads": 0, "memory": 1, "selection": 2, "entries": 3, "window": 4}

    def bar(name: str, first: int, last: int, color: str, text: str, label: str | None = None) -> None:
        y = places[name]
        figure.add_shape(
            type="rect", x0=first - 0.42, x1=last + 0.42, y0=y - 0.32, y1=y + 0.32,
            fillcolor=color, line_width=0, layer="below",
        )  # fmt: skip
        figure.add_scatter(
            mode="text", x=[(first + last) / 2], y=[y], text=[label or str(first)], showlegend=False,
            textfont={"color": "white", "size": 13}, hovertemplate=text + "<extra></extra>",
        )  # fmt: skip

    end = rows[-1]["layer"]
    half = sum(row["is_encoder"] for row in rows)
    for first, last in ((0, half - 1), (half, end)):
        bar("window", first, last, GRAY, "every layer: its own window keys", "each layer its own")
    for name, color in (("entries", BLUE), ("selection", GREEN)):
        for owner in dict.fromkeys(row[name] for row in rows if row[name] is not None):
            mine = [row for row in rows if row[name] == owner]
            label = f"layer {owner}, m = {mine[0]['ratio']}" if name == "entries" else str(owner)
            bar(name, owner, mine[-1]["layer"], color, f"{name} of layer {owner}", label)
    for row in rows:
        if row["has_memory"]:
            bar("memory", row["layer"], row["layer"], PURPLE, f"memory in layer {row['layer']}")
        if row["feeds_draft"]:
            bar(
                "draft reads", row["layer"], row["layer"], VERMILLION, f"layer {row['layer']} feeds the draft"
            )
    figure.add_vline(x=half - 0.5, line={"color": INK, "dash": "dot", "width": 2})
    for x, text in ((half / 2 - 0.5, "encoder"), (half + (end + 1 - half) / 2 - 0.5, "decoder")):
        figure.add_annotation(x=x, y=4.75, text=f"<b>{text}</b>", showarrow=False)
    figure.update_xaxes(title="layer", range=[-0.8, end + 0.8], dtick=4, showgrid=False)
    figure.update_yaxes(
        title="", tickvals=list(places.values()), ticktext=list(places), range=[-0.6, 5.1], showgrid=False
    )
    return figure.update_layout(height=400, margin={"t": 60, "l": 110})


def sizes_figure(rows: Sequence[Row]) -> go.Figure:
    """Parameters, active parameters and cache, a panel each.

    rows: {"model", "quantity", "part", "value"}; quantity is "parameters", "active" or "cache".
    """
    panels = {
        "parameters": ("parameters (billion)", BILLION),
        "active": ("passed by a token (billion)", BILLION),
        "cache": ("cache (bytes a token)", 1),
    }
    colors = {
        "backbone": BLUE, "memory": PURPLE, "written token": ORANGE, "token of a prompt": GREEN,
        "entries and index keys": GRAY,
    }  # fmt: skip
    figure = make_subplots(1, 3, shared_yaxes=True, horizontal_spacing=0.06)
    for col, (quantity, (title, size)) in enumerate(panels.items(), start=1):
        mine = [row for row in rows if row["quantity"] == quantity]
        parts = list(dict.fromkeys(row["part"] for row in mine))
        is_stacked, ends = quantity != "active", dict.fromkeys((row["model"] for row in mine), 0.0)
        for number, part in enumerate(parts):
            own = [row for row in mine if row["part"] == part]
            values = [row["value"] / size for row in own]
            figure.add_bar(
                orientation="h", name=part, legendgroup=part, marker_color=colors[part], x=values,
                y=[row["model"] for row in own],
                base=[ends[row["model"]] if is_stacked else 0 for row in own],
                width=0.5 if is_stacked else 0.34, offset=-0.25 if is_stacked else 0.36 * number - 0.35,
                text=[f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in values],
                textposition="outside" if part == parts[-1] or not is_stacked else "inside",
                insidetextanchor="middle", textfont_size=12, cliponaxis=False, row=1, col=col,
            )  # fmt: skip
            for row, value in zip(own, values, strict=True):
                ends[row["model"]] += value
        most = max(ends.values()) if is_stacked else max(row["value"] for row in mine) / size
        figure.update_xaxes(title=title, range=[0, 1.2 * most], col=col, row=1)
    figure.update_yaxes(autorange="reversed", col=1)
    return figure.update_layout(
        template="workbench", title="V4 and V4.1: stored, passed, remembered", barmode="overlay",
        height=360, margin={"t": 100},
    )  # fmt: skip


def prefill_figure(rows: Sequence[Row], marked: int | None = None) -> go.Figure:
    """Work per token of a prompt against its length, both axes logarithmic.

    rows: {"model", "tokens", "flop"}; `marked` draws a line at a length.
    """
    figure = go.Figure(layout={"template": "workbench", "title": "The work of reading a prompt"})
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        figure.add_scatter(
            name=model, line_color=MODEL[model], mode="lines", x=[row["tokens"] for row in mine],
            y=[row["flop"] / row["tokens"] / GFLOP for row in mine],
            hovertemplate="%{x:,.0f} tokens: %{y:.1f} GFLOP a token<extra>" + model + "</extra>",
        )  # fmt: skip
    if marked is not None:
        figure.add_vline(x=marked, line={"color": GRAY, "dash": "dot", "width": 1.5})
    powers = range(7, 21, 2)
    figure.update_xaxes(
        title="prompt (tokens, 1K = 1024)", type="log", tickvals=[2**p for p in powers],
        ticktext=[str(2**p) if p < 10 else f"{2 ** (p - 10)}K" for p in powers],
    )  # fmt: skip
    return figure.update_yaxes(
        title="work (GFLOP per token of the prompt)", type="log", tickvals=[10, 20, 50, 100, 200, 500]
    )


def replay_figure(rows: Sequence[Row], window: int, exact: int) -> go.Figure:
    """How far the next token's distribution is off, against the tokens that the decoder replays.

    rows: {"prompt", "replay", "kl"}, a line a prompt. Divergences below LEAST_NATS are drawn there.
    """
    figure = go.Figure(layout={"template": "workbench", "title": "What replaying fewer tokens changes"})
    for number, prompt in enumerate(dict.fromkeys(row["prompt"] for row in rows)):
        mine = [row for row in rows if row["prompt"] == prompt]
        figure.add_scatter(
            name="one prompt each", showlegend=not number, mode="lines", line={"color": SKY, "width": 1.5},
            x=[row["replay"] for row in mine], y=[max(row["kl"], LEAST_NATS) for row in mine],
        )  # fmt: skip
    replays = sorted({row["replay"] for row in rows})
    middle = [np.median([max(row["kl"], LEAST_NATS) for row in rows if row["replay"] == r]) for r in replays]
    figure.add_scatter(name="median", mode="lines", line={"color": BLUE, "width": 3.5}, x=replays, y=middle)
    for x, text in ((window, "one window,<br>as released"), (exact, "exact from<br>here on")):
        figure.add_vline(x=x, line={"color": INK, "dash": "dot", "width": 1.5})
        figure.add_annotation(
            x=x,
            y=1,
            yref="paper",
            text=text,
            showarrow=False,
            xanchor="left",
            align="left",
            xshift=5,
            yanchor="top",
        )
    figure.update_xaxes(title="tokens replayed through the decoder")
    return figure.update_yaxes(
        title="divergence of the next token (nats)",
        type="log",
        dtick=2,
        exponentformat="power",
        range=[-7.3, 1],
    )


def lookup_figure(cells: Sequence[Row], tokens: Sequence[str]) -> go.Figure:
    """Which row of the memory's table each n-gram of a text asks for: first head of each order.

    cells: {"token" (its number), "order", "row", "first"}; first is the earliest token with the same row.
    """
    figure = go.Figure(
        layout={"template": "workbench", "title": "What a memory is asked for, token by token"}
    )
    kinds = {"an n-gram that is new": SKY, "one that stood earlier in the text": GREEN}
    for kind, color in kinds.items():
        mine = [cell for cell in cells if (cell["first"] < cell["token"]) == (color == GREEN)]
        figure.add_scatter(
            name=kind, mode="markers", x=[cell["token"] for cell in mine], y=[cell["order"] for cell in mine],
            marker={"symbol": "square", "size": 15, "color": color}, hoverinfo="skip",
        )  # fmt: skip
    for cell in cells:
        figure.add_annotation(
            x=cell["token"],
            y=cell["order"],
            text=f"{cell['row']:,}",
            showarrow=False,
            yshift=-18,
            font={"size": 10},
        )
    figure.update_xaxes(
        title="token", tickvals=list(range(len(tokens))), ticktext=list(tokens), showgrid=False,
        range=[-0.6, len(tokens) - 0.4],
    )  # fmt: skip
    orders = sorted({cell["order"] for cell in cells})
    return figure.update_yaxes(
        title="", tickvals=orders, ticktext=[f"{n} tokens" for n in orders], showgrid=False,
        range=[orders[-1] + 0.5, orders[0] - 0.5],
    ).update_layout(height=360)  # fmt: skip


def recall_figure(rows: Sequence[Row]) -> go.Figure:
    """Facts recalled against training steps: a thick line the mean of seeds, thin ones each.

    rows: {"model", "seed", "step", "recall"}.
    """
    figure = go.Figure(
        layout={"template": "workbench", "title": "Facts that obey no rule: recall while training"}
    )
    for model, color in group_colors(row["model"] for row in rows).items():
        mine = [row for row in rows if row["model"] == model]
        steps = sorted({row["step"] for row in mine})
        for seed in dict.fromkeys(row["seed"] for row in mine):
            own = [row for row in mine if row["seed"] == seed]
            figure.add_scatter(
                mode="lines", line={"color": color, "width": 1}, opacity=0.5, showlegend=False,
                hoverinfo="skip",
                x=[row["step"] for row in own], y=[row["recall"] for row in own],
            )  # fmt: skip
        mean = [float(np.mean([row["recall"] for row in mine if row["step"] == step])) for step in steps]
        figure.add_scatter(name=model, mode="lines+markers", line_color=color, x=steps, y=mean)
    figure.update_xaxes(title="training steps", rangemode="tozero")
    return figure.update_yaxes(title="share of answers recalled", range=[-0.03, 1.05])


def gates_figure(rows: Sequence[Row]) -> go.Figure:
    """How far the memory's gates open at each kind of place: quartiles, whiskers from 5 to 95 of 100.

    rows: {"place", "gate"}.
    """
    figure = go.Figure(layout={"template": "workbench", "title": "How far the gates of the memory open"})
    for place, color in group_colors(row["place"] for row in rows).items():
        low, first, middle, third, high = np.quantile(
            [row["gate"] for row in rows if row["place"] == place], [0.05, 0.25, 0.5, 0.75, 0.95]
        )
        figure.add_box(
            name=place, marker_color=color, x=[place], lowerfence=[low], q1=[first], median=[middle],
            q3=[third],
            upperfence=[high], showlegend=False, width=0.5,
        )  # fmt: skip
    figure.update_xaxes(title="the token at which the memory is asked")
    return figure.update_yaxes(title="gate (mean of the streams)", range=[0, 1])


def drafts_figure(slots: Sequence[Row], cuts: Sequence[Row]) -> go.Figure:
    """Left: how often a slot is accepted, with those before it. Right: tokens against checked slots.

    slots: {"draft", "seed", "slot", "accepted"}; cuts: {"draft", "least", "checked", "tokens"}, means of
    seeds.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    for draft, color in group_colors(row["draft"] for row in slots).items():
        mine = [row for row in slots if row["draft"] == draft]
        numbers = sorted({row["slot"] for row in mine})
        by_slot = [[row["accepted"] for row in mine if row["slot"] == n] for n in numbers]
        mean = [float(np.mean(values)) for values in by_slot]
        figure.add_scatter(
            name=draft, legendgroup=draft, mode="lines+markers", line_color=color, x=numbers, y=mean,
            error_y={"array": [max(v) - m for v, m in zip(by_slot, mean, strict=True)],
                     "arrayminus": [m - min(v) for v, m in zip(by_slot, mean, strict=True)]},
            row=1, col=1,
        )  # fmt: skip
        own = [row for row in cuts if row["draft"] == draft]
        figure.add_scatter(
            name=draft, legendgroup=draft, showlegend=False, mode="lines+markers+text", line_color=color,
            x=[row["checked"] for row in own], y=[row["tokens"] for row in own],
            text=[f"{row['least']:g}" for row in own],
            textposition="bottom right",
            textfont={"color": color, "size": 12},
            row=1, col=2,
        )  # fmt: skip
    figure.update_xaxes(title="slot of the block", dtick=1, col=1)
    figure.update_yaxes(title="accepted, those before it too (share)", range=[0, 1.03], col=1)
    figure.update_xaxes(title="slots checked per pass", rangemode="tozero", col=2)
    figure.update_yaxes(title="tokens written per pass", col=2)
    return figure.update_layout(
        template="workbench", title="Drafts: slot by slot, and cut where the head doubts"
    )
