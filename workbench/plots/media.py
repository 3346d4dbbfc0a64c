"""Pictures and videos as tiles, a video that plays, guidance, attention on a picture, tokens of a picture.

Pixels run from -1 (black) to 1 (white).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.plots.template import COLORWAY, GRAY, group_colors

Row = Mapping[str, Any]
Frames = NDArray[np.float64]

GAP = 1  # pixels between tiles
SHADES = {"colorscale": "Greys_r", "zmin": -1, "zmax": 1, "showscale": False}


def _heatmap(z: Any, hover: str = "column %{x}, row %{y}: %{z:.2f}<extra></extra>") -> go.Heatmap:
    return go.Heatmap(z=z, hovertemplate=hover, **SHADES)


def _as_picture(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(visible=False, constrain="domain")
    return figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x", constrain="domain")


def strips_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Tiles in rows, each row under its own label: the frames of a video, or pictures of one kind.

    rows: {"label", "frames"}, frames an array (t, y, x); rows and sizes may differ.
    """
    arrays = [np.asarray(row["frames"], dtype=float) for row in rows]
    height = max(a.shape[1] for a in arrays) + GAP
    width = max(a.shape[0] * (a.shape[2] + GAP) for a in arrays)
    sheet = np.full((height * len(arrays), width), np.nan)
    for number, frames in enumerate(arrays):
        for t, frame in enumerate(frames):
            top, left = number * height, t * (frame.shape[1] + GAP)
            sheet[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    figure = go.Figure(_heatmap(sheet))
    for number, row in enumerate(rows):
        figure.add_annotation(
            text=row["label"], x=-1, y=number * height + arrays[number].shape[1] / 2 - 0.5,
            xanchor="right", showarrow=False,
        )  # fmt: skip
    longest = max(len(str(row["label"])) for row in rows)
    return _as_picture(figure).update_layout(
        template="workbench",
        title=title,
        height=80 + 72 * len(rows) * max(1, height // 9),
        margin={"l": 30 + 7 * longest, "t": 64, "b": 16},
    )


def player_figure(frames: Frames, title: str, frame_ms: int = 350) -> go.Figure:
    """A video that plays in the page, with a slider for its frames; a picture is one frame and has neither.

    frames: (t, y, x).
    """
    shots = [np.asarray(frame, dtype=float) for frame in frames]
    figure = go.Figure(_heatmap(shots[0]))
    if len(shots) > 1:
        figure.frames = [go.Frame(data=[_heatmap(shot)], name=str(t)) for t, shot in enumerate(shots)]
        moves = {"mode": "immediate", "frame": {"duration": frame_ms, "redraw": True}, "fromcurrent": False}
        still = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}
        figure.update_layout(
            updatemenus=[
                {
                    "type": "buttons",
                    "x": 0,
                    "y": -0.08,
                    "xanchor": "left",
                    "yanchor": "top",
                    "buttons": [{"label": "▶ play", "method": "animate", "args": [None, moves]}],
                }
            ],
            sliders=[
                {
                    "x": 0.2,
                    "len": 0.8,
                    "y": -0.02,
                    "currentvalue": {"prefix": "frame "},
                    "steps": [
                        {"label": str(t + 1), "method": "animate", "args": [[str(t)], still]}
                        for t in range(len(shots))
                    ],
                }
            ],
        )
    return _as_picture(figure).update_layout(template="workbench", title=title)


def guidance_figure(rows: Sequence[Row], levels: Sequence[Row], title: str) -> go.Figure:
    """Shares that are right against the strength of guidance; floors and ceilings as lines across.

    rows: {"measure", "guidance", "value"}; levels: {"name", "value"}.
    """
    figure = go.Figure()
    for measure, color in group_colors(row["measure"] for row in rows).items():
        mine = sorted((row for row in rows if row["measure"] == measure), key=lambda row: row["guidance"])
        figure.add_scatter(
            name=measure, mode="lines+markers", line_color=color,
            x=[row["guidance"] for row in mine], y=[row["value"] for row in mine],
            hovertemplate=f"{measure}, guidance %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    for level in levels:
        figure.add_hline(
            y=level["value"],
            line={"color": GRAY, "dash": "dot", "width": 1.5},
            annotation={"text": level["name"], "xanchor": "left", "yshift": 5},
            annotation_position="top left",
        )
    figure.update_xaxes(title="guidance (1 = the plain model)")
    figure.update_yaxes(title="right (share)", range=[0, 1.1])
    return figure.update_layout(template="workbench", title=title)


def attention_figure(pixels: Frames, maps: Sequence[Row], title: str) -> go.Figure:
    """A picture, and beside it where each word of an answer looks.

    pixels: (y, x). maps: {"label", "weights"}, weights an array over the latent grid.
    """
    figure = make_subplots(1, 1 + len(maps), subplot_titles=["the picture", *(m["label"] for m in maps)])
    figure.add_trace(_heatmap(np.asarray(pixels, dtype=float)), row=1, col=1)
    largest = max(float(np.max(m["weights"])) for m in maps)
    for number, one in enumerate(maps):
        figure.add_heatmap(
            z=np.asarray(one["weights"], dtype=float), zmin=0, zmax=largest, colorscale="Viridis",
            showscale=number == len(maps) - 1, colorbar={"title": "weight"},
            hovertemplate="column %{x}, row %{y}: %{z:.3f}<extra></extra>", row=1, col=number + 2,
        )  # fmt: skip
    for number in range(1 + len(maps)):
        axis = "" if number == 0 else str(number + 1)
        figure.update_xaxes(visible=False, constrain="domain", row=1, col=number + 1)
        figure.update_yaxes(
            visible=False, autorange="reversed", scaleanchor=f"x{axis}", constrain="domain",
            row=1, col=number + 1,
        )  # fmt: skip
    return figure.update_layout(template="workbench", title=title, height=300)


def shrinking_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """What a picture is at each stage, from pixels to cache entries, as bars.

    rows: {"stage", "count"}, in their order.
    """
    figure = go.Figure(
        go.Bar(
            x=[row["stage"] for row in rows],
            y=[row["count"] for row in rows],
            text=[f"{row['count']:,}" for row in rows],
            textposition="outside",
            marker_color=COLORWAY[0],
        )
    )
    figure.update_xaxes(title="stage")
    figure.update_yaxes(title="how many (log scale)", type="log", range=[0, 7])
    return figure.update_layout(template="workbench", title=title)
