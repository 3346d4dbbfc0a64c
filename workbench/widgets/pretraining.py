"""An explorer of the recorded runs of pre-training: two variants, their curves and what is between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.template import BLACK, group_colors
from workbench.training.studies.compare import difference
from workbench.training.studies.record import read_study
from workbench.widgets.explorer import Explorer

CURVES = {
    "held-out loss (nats a token)": "held_out",
    "training loss (nats a token)": "loss",
    "largest expert load (mean = 1)": "largest_load",
}


def curve(found: Mapping[str, Any], field: str) -> tuple[list[float], list[float]]:
    """Thousand tokens read, and the field there, of one recorded run."""
    if field == "held_out":
        return [p["tokens"] / 1e3 for p in found[field]], [p["loss"] for p in found[field]]
    n = len(found[field])
    return [found["tokens"] / 1e3 * (i + 1) / n for i in range(n)], found[field]


def pair_figure(variant: str, against: str, what: str) -> go.Figure:
    """Every seed's curve of two variants, and beside them their difference at the end, seed by seed."""
    study, field = read_study("text"), CURVES[what]
    seeds = sorted({seed for name, seed in study if name == variant} & {s for n, s in study if n == against})
    figure = make_subplots(1, 2, column_widths=[0.72, 0.28], horizontal_spacing=0.12)
    for name, color in group_colors((variant, against)).items():
        for seed in seeds:
            x, y = curve(study[name, seed], field)
            figure.add_scatter(
                name=name, legendgroup=name, showlegend=seed == seeds[0], x=x, y=y, mode="lines",
                line={"color": color, "width": 1.8}, row=1, col=1,
                hovertemplate="%{x:.0f} thousand tokens: %{y:.4g}<extra>" + f"{name}, seed {seed}</extra>",
            )  # fmt: skip
    _ends(figure, [[study[name, seed]["held_out_loss"] for seed in seeds] for name in (variant, against)])
    figure.update_xaxes(title="tokens read (thousand)", row=1, col=1).update_yaxes(title=what, row=1, col=1)
    figure.update_yaxes(title=f"held-out loss, against {against} (nats)", row=1, col=2)
    return figure.update_layout(template="workbench", title=f"{variant} beside {against}")


def _ends(figure: go.Figure, losses: Sequence[Sequence[float]]) -> None:
    found = difference(*losses)
    figure.add_scatter(
        name="a seed", x=["a seed"] * len(found.values), y=found.values, mode="markers", showlegend=False,
        marker={"size": 9, "opacity": 0.6, "color": BLACK}, row=1, col=2,
        hovertemplate="%{y:+.4f}<extra>a seed</extra>",
    )  # fmt: skip
    figure.add_scatter(
        name="mean, 95 %", x=["mean, 95 %"], y=[found.value], mode="markers", showlegend=False,
        error_y={"array": [found.high - found.value], "arrayminus": [found.value - found.low]},
        marker={"size": 10, "color": BLACK}, row=1, col=2, hovertemplate="%{y:+.4f}<extra>mean</extra>",
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": BLACK, "width": 1}, row=1, col=2)


def pretraining_explorer(picture: str | None = None) -> Explorer:
    """Any two variants of the study on text, and which curve of theirs."""
    names = list(dict.fromkeys(name for name, _ in read_study("text")))
    select = ipywidgets.Dropdown
    controls = {
        "variant": select(options=names, value="plain residual"),
        "against": select(options=names, value="base"),
        "what": select(options=list(CURVES), description="curve"),
    }
    return Explorer(pair_figure, controls, picture=picture, title="Two variants of one tiny V4")
