"""Effort, tools, agents: accuracy against tokens, where thought goes, calls, kept reasoning, starts, logs."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLUE, GRAY, GREEN, INK, ORANGE, PALE, VERMILLION, Palette

Row = Mapping[str, Any]

EFFORT = Palette("EFFORT", {"base": GRAY, "low": ORANGE, "high": GREEN, "max": BLUE})
MARKERS = ("circle", "square", "diamond", "cross", "x", "star")


def frontier_figure(
    rows: Sequence[Row], title: str = "What more thought buys", *, price: float | None = None
) -> go.Figure:
    """Accuracy against tokens: a colour an effort, a marker a seed, intervals over problems.

    rows: {"effort", "seed", "tokens", "accuracy", "low", "high"}; a row whose effort is "blind mixing"
    belongs to a dashed line of its seed. `price` draws, through the best point of the first seed, the line of
    all that is worth as much at that price of a token.
    """
    figure = go.Figure()
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    for number, seed in enumerate(seeds):
        mixing = sorted(
            (row["tokens"], row["accuracy"]) for row in rows
            if row["seed"] == seed and row["effort"] == "blind mixing"
        )  # fmt: skip
        if mixing:
            figure.add_scatter(
                name="base, mixed blindly", legendgroup="mixing", showlegend=number == 0, mode="lines",
                line={"color": PALE, "dash": "dot", "width": 2}, x=[x for x, _ in mixing],
                y=[y for _, y in mixing], hoverinfo="skip",
            )  # fmt: skip
    for effort, color in EFFORT.items():
        mine = [row for row in rows if row["effort"] == effort]
        if not mine:
            continue
        figure.add_scatter(
            name=effort, mode="markers",
            marker={"color": color, "size": 11,
                    "symbol": [MARKERS[seeds.index(row["seed"]) % len(MARKERS)] for row in mine]},
            x=[row["tokens"] for row in mine], y=[row["accuracy"] for row in mine],
            error_y={"array": [row["high"] - row["accuracy"] for row in mine],
                     "arrayminus": [row["accuracy"] - row["low"] for row in mine], "thickness": 1.2},
            customdata=[row["seed"] for row in mine],
            hovertemplate=f"{effort}, seed %{{customdata}}: %{{y:.3f}} at %{{x:.1f}} tokens<extra></extra>",
        )  # fmt: skip
    most = max(row["tokens"] for row in rows) + 1
    if price is not None:
        first = [row for row in rows if row["seed"] == seeds[0] and row["effort"] in EFFORT]
        best = max(row["accuracy"] - price * row["tokens"] for row in first)
        figure.add_scatter(
            name="worth as much as the best", mode="lines", line={"color": INK, "width": 1.5},
            x=[0, most], y=[best, best + price * most], hoverinfo="skip",
        )  # fmt: skip
    figure.update_xaxes(title="length of the answer (tokens)", range=[0, most])
    figure.update_yaxes(title="held-out accuracy (share of answers)", range=[0, 1.05])
    return figure.update_layout(template="workbench", title=title)


def thinking_figure(rows: Sequence[Row], title: str = "Where each effort thinks") -> go.Figure:
    """Share of answers that think, by difficulty: a colour an effort, a line a seed.

    rows: {"effort", "seed", "level", "thinks"}.
    """
    figure = go.Figure()
    for effort, color in EFFORT.items():
        seeds = list(dict.fromkeys(row["seed"] for row in rows if row["effort"] == effort))
        for number, seed in enumerate(seeds):
            mine = sorted(
                (row["level"], row["thinks"])
                for row in rows
                if (row["effort"], row["seed"]) == (effort, seed)
            )
            figure.add_scatter(
                name=effort, legendgroup=effort, showlegend=number == 0, mode="lines+markers",
                line_color=color, marker={"size": 8, "symbol": MARKERS[number % len(MARKERS)]},
                x=[x for x, _ in mine], y=[y for _, y in mine],
                hovertemplate=f"{effort}, seed {seed}, level %{{x}}: %{{y:.2f}}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title="level (operations in the chain)", dtick=1)
    figure.update_yaxes(title="answers that think (share)", range=[-0.03, 1.05])
    return figure.update_layout(template="workbench", title=title)


SETTING = Palette(
    "SETTING",
    {"no tool": GRAY, "tool, shown": ORANGE, "tool, after reward": BLUE},
)


def tool_figure(rows: Sequence[Row], title: str = "Sums with and without a calculator") -> go.Figure:
    """Accuracy, and share of conversations that call, by the numbers' digits; a marker a seed.

    rows: {"setting", "seed", "digits", "accuracy", "low", "high", "calls"}.
    """
    titles = ["accuracy", "conversations that call the tool"]
    figure = make_subplots(1, 2, horizontal_spacing=0.13, subplot_titles=titles)
    digits = sorted({row["digits"] for row in rows})
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    for place, (setting, color) in enumerate(SETTING.items()):
        mine = [row for row in rows if row["setting"] == setting]
        side = 0.2 * (place - 1) - 0.025 * (len(seeds) - 1)  # beside each other, so that none hides
        x = [digits.index(row["digits"]) + side + 0.05 * seeds.index(row["seed"]) for row in mine]
        for column, field in enumerate(("accuracy", "calls"), start=1):
            if not mine or (field == "calls" and setting == "no tool"):
                continue
            bars = {
                "array": [row["high"] - row["accuracy"] for row in mine],
                "arrayminus": [row["accuracy"] - row["low"] for row in mine],
                "thickness": 1.2,
            }
            figure.add_scatter(
                error_y=bars if field == "accuracy" else None,
                name=setting, legendgroup=setting, showlegend=column == 1, mode="markers",
                marker={"color": color, "size": 9,
                        "symbol": [MARKERS[seeds.index(row["seed"]) % len(MARKERS)] for row in mine]},
                x=x, y=[row[field] for row in mine], row=1, col=column,
                hovertemplate=f"{setting}: %{{y:.2f}}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title="digits of both numbers", tickvals=list(range(len(digits))), ticktext=digits)
    figure.update_yaxes(title="held-out accuracy (share)", range=[-0.03, 1.05], col=1)
    figure.update_yaxes(title="share of conversations", range=[-0.03, 1.05], col=2)
    return figure.update_layout(template="workbench", title=title, margin_t=125, legend_y=1.13)


def kept_figure(
    rows: Sequence[Row], title: str = "Earlier reasoning in the prompt, request by request"
) -> go.Figure:
    """Tokens of every request: reasoning of earlier turns and all the rest, a panel a kind of conversation.

    rows: {"conversation", "request", "reasoning_tokens", "dropped_tokens", "other_tokens"}.
    """
    kinds = list(dict.fromkeys(row["conversation"] for row in rows))
    figure = make_subplots(1, len(kinds), shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=kinds)
    parts = {
        "other_tokens": ("all the rest", {"color": PALE}),
        "reasoning_tokens": ("earlier reasoning, kept", {"color": BLUE}),
        "dropped_tokens": (
            "earlier reasoning, left out",
            {"color": "white", "line": {"color": BLUE, "width": 1.5}},
        ),
    }
    for column, kind in enumerate(kinds, start=1):
        mine = [row for row in rows if row["conversation"] == kind]
        for field, (name, marker) in parts.items():
            figure.add_bar(
                name=name, legendgroup=name, showlegend=column == 1, marker=marker,
                x=[row["request"] + 1 for row in mine], y=[row[field] for row in mine], row=1, col=column,
                hovertemplate=f"{name}: %{{y:,}} tokens<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title="request (number)", dtick=1)
    figure.update_yaxes(title="prompt (tokens)", col=1)
    return figure.update_layout(
        template="workbench", title=title, barmode="stack", margin_t=125, legend_y=1.13
    )


def starts_figure(rows: Sequence[Row], title: str = "Until the first program can run") -> go.Figure:
    """Time to start from an image against its size, eagerly and on demand.

    rows: {"how", "image_bytes", "start_s"}.
    """
    figure = go.Figure()
    for how, color in {"copied whole": VERMILLION, "on demand": BLUE}.items():
        mine = sorted((r["image_bytes"] / 2**20, 1e3 * r["start_s"]) for r in rows if r["how"] == how)
        figure.add_scatter(
            name=how, mode="lines+markers", line_color=color, x=[x for x, _ in mine], y=[y for _, y in mine],
            hovertemplate=f"{how}, %{{x:.0f}} MiB: %{{y:.2f}} ms<extra></extra>",
        )  # fmt: skip
    sizes = sorted({row["image_bytes"] // 2**20 for row in rows})
    figure.update_xaxes(title="size of the image (MiB)", type="log", tickvals=sizes, ticktext=sizes)
    figure.update_yaxes(title="start (ms)", type="log", dtick=1)
    return figure.update_layout(template="workbench", title=title)


def replay_figure(
    rows: Sequence[Row], title: str = "Killed at every byte of the log, and resumed"
) -> go.Figure:
    """Commands worked out again, and how often the bell rang in all, against where the log was cut.

    rows: {"cut_bytes", "executed", "effects", "without_log"}.
    """
    figure = go.Figure()
    lines = {
        "commands worked out after the kill": ("executed", ORANGE, "solid"),
        "rings of the bell, resumed": ("effects", BLUE, "solid"),
        "rings of the bell, started again without a log": ("without_log", VERMILLION, "dash"),
    }
    for name, (field, color, dash) in lines.items():
        figure.add_scatter(
            name=name, mode="lines", line={"color": color, "dash": dash, "shape": "hv"},
            x=[row["cut_bytes"] for row in rows], y=[row[field] for row in rows],
        )  # fmt: skip
    figure.update_xaxes(title="the log was cut behind this byte")
    figure.update_yaxes(title="times", rangemode="tozero", dtick=1)
    return figure.update_layout(template="workbench", title=title)


_PLAIN = str.maketrans({"\N{FULLWIDTH VERTICAL LINE}": "|", "\N{LOWER ONE EIGHTH BLOCK}": "_"})


def transcript_figure(rows: Sequence[Row], talk: int, turn: int) -> go.Figure:
    """A conversation up to one of its turns: who speaks, the text as it is read, and how many tokens it has.

    rows: {"talk", "turn", "who", "text", "tokens"}. The bars of V4's control tokens are drawn as plain ones,
    since few fonts have them.
    """
    mine = [row for row in rows if row["talk"] == talk and row["turn"] <= turn]
    shown = [
        row["text"].translate(_PLAIN).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        .replace("\n", "<br>")
        for row in mine
    ]  # fmt: skip
    colors = {"assistant": BLUE, "tool": VERMILLION}
    table = go.Table(
        columnwidth=[2, 9, 1],
        header={"values": ["who", "text", "tokens"], "align": "left"},
        cells={
            "values": [[row["who"] for row in mine], shown, [row["tokens"] for row in mine]],
            "align": "left", "height": 26,
            "font": {"color": [[colors.get(row["who"], INK) for row in mine]]},
        },
    )  # fmt: skip
    total = sum(row["tokens"] for row in mine)
    return go.Figure(table).update_layout(
        template="workbench", title=f"Up to turn {turn}: {total} tokens", height=600
    )
