"""Explorers of clusters: one expert layer on the clock, in turn, in pairs and in waves."""

from __future__ import annotations

from statistics import NormalDist

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from workbench.chips.systems import load_system, systems
from workbench.plots.clusters import schedule_figure
from workbench.widgets.chip_rows import shown_model
from workbench.widgets.cluster_rows import schedule_rows
from workbench.widgets.explorer import Explorer


def wave_loads(waves: int, skew: float) -> list[float]:
    """The work of each wave: equal for skew 0, else from the middle of each part of a log-normal, mixed."""
    # Quantiles, not draws: the figure must not jump when a slider returns.
    middle = [NormalDist().inv_cdf((i + 0.5) / waves) for i in range(waves)]
    order = np.random.default_rng(0).permutation(waves)
    return [float(np.exp(skew * middle[i])) for i in order]


def waves_figure(model: str, system: str, tokens: int, waves: int, skew: float, ranks: int = 8) -> go.Figure:
    """One expert layer of `tokens` tokens a rank: who works when, three ways."""
    spans, heads, _ = schedule_rows(model, system, tokens, wave_loads(waves, skew), ranks)
    name = load_system(system).name
    unit = "token" if tokens == 1 else "tokens"
    title = f"{shown_model(model)}: one expert layer, {tokens:,} {unit} a rank, EP{ranks}, {name}"
    return schedule_figure(spans, heads, title)


def waves_explorer(picture: str | None = None) -> Explorer:
    """Model × system × tokens × waves × skew: the schedule follows. Opens at Flash, 512 tokens, B200."""
    slider, select = ipywidgets.SelectionSlider, ipywidgets.Dropdown
    names = [(load_system(key).name, key) for key in systems()]
    controls = {
        "model": select(
            options=[(shown_model(key), key) for key in ("deepseek-v4-flash", "deepseek-v4-pro")]
        ),
        "system": select(options=names, value="b200"),
        "tokens": slider(options=[2**i for i in range(16)], value=512, description="tokens a rank"),
        "waves": slider(options=[1, 2, 3, 4, 6, 8, 12, 16, 32], value=8),
        "skew": slider(options=[0.0, 0.5, 1.0, 1.5], value=0.0, description="skew of the loads"),
        "ranks": slider(options=[2, 4, 8, 16, 32, 64], value=8),
    }
    return Explorer(waves_figure, controls, picture=picture, title="One expert layer, three schedules")
