"""Figures of one kernel on many chips: its pipeline, its resources, its kernels in order, its bounds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VENDOR,
    VERMILLION,
    YELLOW,
    Palette,
    group_colors,
)
from workbench.units import MICROSECOND_S

Row = Mapping[str, Any]

# What a kernel waits for: the stages of its pipeline, and what all cores share.
LIMIT = Palette(
    "LIMIT",
    {
        "launch": GRAY,
        "memory": VERMILLION,
        "load": BLUE,
        "feed": SKY,
        "compute": GREEN,
        "step": YELLOW,
        "vector": ORANGE,
        "store": PURPLE,
    },
)
LIMIT_TEXT = {
    "launch": "launch",
    "memory": "main memory",
    "load": "load into the core",
    "feed": "feed of the matrix unit",
    "compute": "matrix unit",
    "step": "least time of a step",
    "vector": "vector unit",
    "store": "store",
}
LANE_PIXELS, HEAD_PIXELS = 21, 34
US = 1 / MICROSECOND_S


def pipeline_figure(spans: Sequence[Row], heads: Sequence[Row], title: str) -> go.Figure:
    """Left: engines of the busiest core at work. Right: how long each is busy, and whom it waits for.

    spans: {"chip", "engine", "stage", "tile", "start_s", "end_s", "waits_for"}, in order of time;
    heads: {"chip", "text"}, one a panel. Pale colours on the right are time spent waiting for the engine
    of that colour.
    """
    chips = [head["chip"] for head in heads]
    lanes = {chip: _lanes([s for s in spans if s["chip"] == chip]) for chip in chips}
    figure = make_subplots(
        rows=len(chips), cols=2, column_widths=[0.66, 0.34], horizontal_spacing=0.02, shared_yaxes=True,
        vertical_spacing=HEAD_PIXELS / max(_height(lanes) - 150, 1),
        row_heights=[len(lanes[chip]) for chip in chips],
    )  # fmt: skip
    for number, head in enumerate(heads, start=1):
        mine = [s for s in spans if s["chip"] == head["chip"]]
        for stage in (s for s in LIMIT if s in {row["stage"] for row in mine}):
            _add_spans(figure, [s for s in mine if s["stage"] == stage], stage, number)
        for row in waiting_rows(mine):
            _add_waiting(figure, row, number)
        # Lanes from top to bottom in the order of the pipeline.
        figure.update_yaxes(
            categoryorder="array", categoryarray=lanes[head["chip"]][::-1], row=number, tickfont={"size": 12}
        )
        figure.add_annotation(
            text=head["text"], x=0, y=1, xref="x domain" if number == 1 else f"x{2 * number - 1} domain",
            yref="y domain" if number == 1 else f"y{2 * number - 1} domain",
            xanchor="left", yanchor="bottom", showarrow=False, font={"size": 13}, align="left",
        )  # fmt: skip
    _add_legend(figure, [stage for stage in LIMIT if stage in {s["stage"] for s in spans}])
    end = max(s["end_s"] for s in spans) * US
    figure.update_xaxes(range=[0, end * 1.01], col=1)
    figure.update_xaxes(range=[0, 100], showticklabels=False, col=2)
    figure.update_xaxes(title="time (µs)", row=len(chips), col=1)
    figure.update_xaxes(title="share of the time drawn (%)", showticklabels=True, row=len(chips), col=2)
    for number in range(1, len(chips)):
        figure.update_xaxes(showticklabels=False, row=number, col=1)
    return figure.update_layout(
        template="workbench", title=title, barmode="overlay", bargap=0.18, height=_height(lanes),
        margin={"t": 118, "b": 58, "l": 116},
        legend={"x": 0.012, "xref": "container", "y": 1 - 44 / _height(lanes), "yref": "container",
                "yanchor": "top"},
    )  # fmt: skip


def waiting_rows(spans: Sequence[Row]) -> list[dict[str, Any]]:
    """How the time of each engine of one chip divides: at work, waiting for another, done.

    spans as for `pipeline_figure` -> {"engine", "stage", "doing", "cause", "share"}; cause is the stage of
    the engine waited for. Shares of an engine add up to one.
    """
    stage_of = {s["engine"]: s["stage"] for s in spans}
    launch = max((s["end_s"] for s in spans if s["stage"] == "launch"), default=0.0)
    end = max(s["end_s"] for s in spans)
    rows: list[dict[str, Any]] = []
    for engine, stage in stage_of.items():
        mine = [s for s in spans if s["engine"] == engine]
        spent: dict[tuple[str, str], float] = {("works", stage): sum(s["end_s"] - s["start_s"] for s in mine)}
        at = 0.0
        for s in mine:
            if s["start_s"] > at:
                before = max(min(launch, s["start_s"]) - at, 0.0)
                cause = stage_of.get(s["waits_for"], stage)
                spent["waits", "launch"] = spent.get(("waits", "launch"), 0.0) + before
                spent["waits", cause] = spent.get(("waits", cause), 0.0) + s["start_s"] - at - before
            at = s["end_s"]
        spent["is done", ""] = end - at
        rows += [
            {"engine": engine, "stage": stage, "doing": doing, "cause": cause, "share": seconds / end}
            for (doing, cause), seconds in spent.items()
            if seconds > 1e-9 * end
        ]
    return rows


def resources_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """What each resource would need by itself, as a share of the expected time; the rightmost limits.

    rows: {"chip", "resource", "seconds", "expected_s"}; resource is a key of LIMIT, or "roofline".
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    chips = list(dict.fromkeys(row["chip"] for row in rows))
    for resource in (r for r in ("roofline", *LIMIT) if r in {row["resource"] for row in rows}):
        mine = [row for row in rows if row["resource"] == resource]
        is_roof = resource == "roofline"
        marker = (
            {"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": BLACK}}
            if is_roof
            else {
                "color": LIMIT[resource],
                "size": 13,
                "opacity": 0.9,
                "line": {"width": 1, "color": "white"},
            }
        )
        figure.add_scatter(
            name="roofline" if is_roof else LIMIT_TEXT[resource], mode="markers",
            marker=marker, x=[100 * row["seconds"] / row["expected_s"] for row in mine],
            y=[row["chip"] for row in mine], customdata=[row["seconds"] * US for row in mine],
            hovertemplate="%{y}: %{customdata:.2f} µs, %{x:.0f}%<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.add_vline(x=100, line={"color": PALE, "width": 1.5, "dash": "dot"})
    figure.update_layout(margin={"t": 112}, legend={"entrywidth": 0})
    return figure.update_xaxes(
        title="time alone, as a share of the expected time (%)", range=[-2, 112]
    ).update_yaxes(categoryorder="array", categoryarray=chips[::-1], showgrid=True)


def breakdown_figure(rows: Sequence[Row], title: str, *, height: int = 480) -> go.Figure:
    """Kernels of a step one after the other, one bar a chip (and a thin one for each variant).

    rows: {"chip", "part", "seconds", "lower_s", "upper_s"}, in order of time within a chip, and perhaps
    "variant"; bounds are added up to a whisker. A second variant says by how much it differs from the first.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    chips = list(dict.fromkeys(row["chip"] for row in rows))
    variants = list(dict.fromkeys(row.get("variant", "") for row in rows))
    colors = group_colors(row["part"] for row in rows)
    unit, scale = ("ms", 1e3) if sum(r["seconds"] for r in rows) > 0.02 * len(chips) else ("µs", US)
    for part, color in colors.items():
        mine = [row for row in rows if row["part"] == part]
        figure.add_bar(
            name=part, orientation="h", marker_color=color,
            x=[row["seconds"] * scale for row in mine], y=_two_levels(mine, variants),
            hovertemplate="%{x:.3g} " + unit + "<extra>" + part + "</extra>",
        )  # fmt: skip
    for chip in chips:
        first = None
        for variant in variants:
            mine = [row for row in rows if row["chip"] == chip and row.get("variant", "") == variant]
            total, lower, upper = (
                sum(r[key] for r in mine) * scale for key in ("seconds", "lower_s", "upper_s")
            )
            change = "" if first is None else f"{100 * (total / first - 1):+.1f}%".replace("-", "−")
            first = total if first is None else first
            figure.add_scatter(
                x=[upper], y=_two_levels(mine[:1], variants), mode="text", showlegend=False, hoverinfo="skip",
                text=[f"  {change}"], textposition="middle right", textfont={"size": 12, "color": INK},
            )  # fmt: skip
            figure.add_scatter(
                x=[total], y=_two_levels(mine[:1], variants), mode="markers", showlegend=False,
                marker={"color": INK, "size": 5},
                error_x={"array": [upper - total], "arrayminus": [total - lower], "color": INK,
                         "thickness": 1.3, "width": 4},
                hovertemplate=f"{chip}: {total:.3g} {unit}, from {lower:.3g} to {upper:.3g}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(
        title=f"time of the kernels ({unit}); whisker: lower to upper bound", rangemode="tozero"
    )
    figure.update_yaxes(autorange="reversed")
    return figure.update_layout(barmode="stack", bargap=0.3, height=height)


def bounds_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Lower bound, expected time and upper bound of each chip, one panel a kernel.

    rows: {"chip", "vendor", "case", "lower_s", "expected_s", "upper_s", "roof_s", "is_uncertain"}.
    """
    cases = list(dict.fromkeys(row["case"] for row in rows))
    chips = list(dict.fromkeys(row["chip"] for row in rows))
    figure = make_subplots(
        rows=1, cols=len(cases), shared_yaxes=True, subplot_titles=cases, horizontal_spacing=0.03
    )
    shown: set[str] = set()
    for row in rows:
        at = {"row": 1, "col": 1 + cases.index(row["case"])}
        color = VENDOR[row["vendor"].lower()]
        figure.add_scatter(
            x=[row["lower_s"] * US, row["upper_s"] * US], y=[row["chip"]] * 2, mode="lines", showlegend=False,
            line={"color": color, "width": 11}, opacity=0.28, hoverinfo="skip", **at,
        )  # fmt: skip
        figure.add_scatter(
            x=[row["expected_s"] * US], y=[row["chip"]], mode="markers", name=row["vendor"],
            legendgroup=row["vendor"], showlegend=row["vendor"] not in shown,
            marker={"color": "white" if row["is_uncertain"] else color, "size": 11,
                    "line": {"color": color, "width": 2.5}},
            hovertemplate=f"{row['lower_s'] * US:.1f} … <b>%{{x:.1f}}</b> … {row['upper_s'] * US:.1f} µs"
                          "<extra>%{y}</extra>", **at,
        )  # fmt: skip
        shown.add(row["vendor"])
        figure.add_scatter(
            x=[row["roof_s"] * US], y=[row["chip"]], mode="markers", name="roofline", legendgroup="roofline",
            showlegend="roofline" not in shown, hovertemplate="roofline %{x:.1f} µs<extra>%{y}</extra>",
            marker={"symbol": "line-ns", "size": 15, "line": {"width": 2.5, "color": BLACK}}, **at,
        )  # fmt: skip
        shown.add("roofline")
    for column, case in enumerate(cases, start=1):
        mine = [row for row in rows if row["case"] == case]
        least = min(min(row["lower_s"], row["roof_s"]) for row in mine) * US
        ends = [math.log10(least / 1.3), math.log10(max(row["upper_s"] for row in mine) * US * 1.3)]
        figure.update_xaxes(type="log", title="time (µs)", range=ends, dtick="D2", row=1, col=column)
    figure.update_yaxes(categoryorder="array", categoryarray=chips[::-1])
    return figure.update_layout(template="workbench", title=title, margin={"t": 124}, legend={"y": 1.09})


def time_text(seconds: float) -> str:
    """Seconds in the unit that a person would choose, to three digits."""
    for unit, scale in (("µs", MICROSECOND_S), ("ms", 1e3 * MICROSECOND_S)):
        if seconds < 1000 * scale:
            return f"{float(f'{seconds / scale:.3g}'):g} {unit}"
    return f"{seconds:.3g} s"


def _lanes(spans: Sequence[Row]) -> list[str]:
    order = list(LIMIT)
    stages = {s["engine"]: order.index(s["stage"]) for s in spans}
    return sorted(stages, key=lambda engine: stages[engine])


def _height(lanes: Mapping[str, Sequence[str]]) -> int:
    return 150 + sum(HEAD_PIXELS + LANE_PIXELS * len(engines) for engines in lanes.values())


def _two_levels(rows: Sequence[Row], variants: Sequence[str]) -> list[Any]:
    chips = [row["chip"] for row in rows]
    return chips if len(variants) < 2 else [chips, [row["variant"] for row in rows]]


def _add_spans(figure: go.Figure, spans: Sequence[Row], stage: str, number: int) -> None:
    figure.add_bar(
        orientation="h", showlegend=False, y=[s["engine"] for s in spans],
        base=[s["start_s"] * US for s in spans], x=[(s["end_s"] - s["start_s"]) * US for s in spans],
        # Tiles in turns dark and light, so that one sees where the next begins.
        marker={"color": LIMIT[stage], "opacity": [0.55 if s["tile"] % 2 else 1.0 for s in spans],
                "line": {"color": "white", "width": 0.6}},
        customdata=[[s["tile"] + 1, s["waits_for"] or "nothing"] for s in spans],
        hovertemplate="tile %{customdata[0]}: %{x:.2f} µs, after %{customdata[1]}<extra>%{y}</extra>",
        row=number, col=1,
    )  # fmt: skip


def _add_waiting(figure: go.Figure, row: Row, number: int) -> None:
    works = row["doing"] == "works"
    color = LIMIT[row["cause"]] if row["cause"] else "white"
    before = sum(bar.x[0] for bar in figure.data if bar.meta == (number, row["engine"]))
    of_whom = f" for: {LIMIT_TEXT[row['cause']]}" if row["doing"] == "waits" else ""
    figure.add_bar(
        orientation="h", showlegend=False, y=[row["engine"]], x=[100 * row["share"]], base=[before],
        meta=(number, row["engine"]),
        marker={"color": color, "opacity": 1.0 if works else 0.26, "line": {"width": 0}},
        hovertemplate=f"{row['doing']}{of_whom}: %{{x:.0f}}%<extra>{row['engine']}</extra>",
        row=number, col=2,
    )  # fmt: skip


def _add_legend(figure: go.Figure, stages: Sequence[str]) -> None:
    for stage in stages:
        figure.add_bar(x=[None], y=[None], name=LIMIT_TEXT[stage], marker_color=LIMIT[stage])
