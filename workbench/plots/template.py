"""The look of every figure: one plotly template, and what a colour, a dash and a marker mean.

A measured or counted value is a solid line, a simulated one dashed, the report's a hollow diamond.
Source: the eight colours are those of Okabe and Ito, "Color Universal Design" (2008).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILLION, PURPLE, YELLOW, BLACK = "#D55E00", "#CC79A7", "#F0E442", "#000000"
WINE, GRAY, GRID = "#661100", "#595959", "#E4E7EB"
INK, PALE = "#24292F", "#A3ABB5"

# JupyterLab squeezes a figure without a height into 360 pixels.
FIGURE_HEIGHT = 480

COLORWAY = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, BLACK)

# For a logarithmic axis of a few decades: plotly alone names all nine digits, or none.
LOG_TICKS = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]

MEASURED = {"dash": "solid"}
SIMULATED = {"dash": "dash"}
PRINTED = {"symbol": "diamond-open", "size": 12, "line": {"width": 2.5}}


class Palette(dict[str, str]):
    """Colours by name; an unknown name is an error that lists the known ones.

    Raises:
        ValueError: the name has no colour.
    """

    def __init__(self, what: str, colors: dict[str, str]) -> None:
        super().__init__(colors)
        self.what = what

    def __missing__(self, name: str) -> str:
        raise ValueError(f"{self.what}: {name!r} has no colour; use one of {sorted(self)}")


FAMILY = Palette(
    "FAMILY",
    {
        "deepseek-v4-pro": BLUE,
        "deepseek-v4-flash": SKY,
        "deepseek-v3.2": VERMILLION,
        "deepseek-v3": ORANGE,
        "kimi": PURPLE,
        "qwen": GREEN,
        "llama": WINE,
        "gqa": GRAY,
        "custom": BLACK,  # a configuration changed by hand
    },
)

VENDOR = Palette(
    "VENDOR",
    {
        "huawei": VERMILLION,
        "cambricon": BLUE,
        "nvidia": GREEN,
        "amd": ORANGE,
        "google": PURPLE,
        "intel": SKY,
        "other": GRAY,
    },
)


def group_colors(names: Iterable[str]) -> dict[str, str]:
    """A colour for each distinct name, in order of first appearance: parts of a whole, not models.

    Raises:
        ValueError: more names than colours that a reader can tell apart.
    """
    distinct = list(dict.fromkeys(names))
    if len(distinct) > len(COLORWAY):
        raise ValueError(
            f"group_colors: {len(distinct)} groups; {len(COLORWAY)} colours can be told apart: "
            f"merge the smallest of {distinct}"
        )
    return dict(zip(distinct, COLORWAY, strict=False))


def label_totals(
    figure: go.Figure, rows: Sequence[Mapping[str, Any]], key: str, size: float, **cell: int
) -> None:
    """Write the sum of `key` over a model's rows, in units of `size`, at the end of its stacked bar."""
    for model in dict.fromkeys(row["model"] for row in rows):
        total = sum(row[key] for row in rows if row["model"] == model) / size
        text = f"{total:,.0f}" if total >= 100 else f"{total:.3g}"
        figure.add_annotation(x=total, y=model, text=text, showarrow=False, xanchor="left", xshift=4, **cell)


def _template() -> go.layout.Template:
    axis = {
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "linecolor": PALE,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": PALE,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 14}},
        "tickfont": {"size": 13},
    }
    layout = go.Layout(
        # No system-ui: it would make the committed pictures depend on the machine's desktop.
        font={"family": "Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif", "size": 14, "color": INK},
        title={"x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top",
               "pad": {"l": 14, "t": 14}, "font": {"size": 18, "weight": 600}},
        paper_bgcolor="white",
        plot_bgcolor="white",
        colorway=COLORWAY,
        colorscale={"sequential": "Cividis", "sequentialminus": "Cividis", "diverging": "RdBu"},
        margin={"l": 72, "r": 28, "t": 92, "b": 60},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
                "traceorder": "normal", "font": {"size": 13}},
        hoverlabel={"bgcolor": "white", "bordercolor": PALE, "font": {"size": 13}},
        xaxis=axis,
        yaxis=axis,
    )  # fmt: skip
    data = {
        "scatter": [go.Scatter(line={"width": 2.5}, marker={"size": 8})],
        "bar": [go.Bar(marker={"line": {"color": "white", "width": 0.5}})],
    }
    return go.layout.Template(layout=layout, data=data)


pio.templates["workbench"] = _template()
