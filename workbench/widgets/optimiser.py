"""An explorer of Newton-Schulz: how spread singular values come to one, step by step, in two dtypes."""

import ipywidgets
import plotly.graph_objects as go
import torch

from workbench.plots.optimiser import steps_figure
from workbench.training.newton_schulz import (
    HYBRID,
    PINNING,
    STEEP,
    singular_values_by_step,
    with_singular_values,
)
from workbench.widgets.explorer import Explorer

WAYS = {
    "8 steep, 2 pinning (V4)": HYBRID,
    "10 steep": (STEEP,) * 10,
    "5 steep": (STEEP,) * 5,
    "10 pinning": (PINNING,) * 10,
}
DTYPES = {"FP32": torch.float32, "BF16": torch.bfloat16}
ROWS, COLUMNS = 32, 48


def newton_schulz_figure(decades: float, dtype: str, steps: str) -> go.Figure:
    """A matrix whose 32 singular values are spread evenly, in their logarithms, over so many decades."""
    values = torch.logspace(0, -decades, ROWS, dtype=torch.float64)
    x = with_singular_values(values, COLUMNS, torch.Generator().manual_seed(0))
    by_step = singular_values_by_step(x, WAYS[steps], DTYPES[dtype])
    fast = sum(coefficients == STEEP for coefficients in WAYS[steps])
    away = float((by_step[-1] - 1).abs().max())
    title = f"Singular values step by step, {steps}, {dtype}: at most {away:.1g} from one at the end"
    return steps_figure([values.tolist() for values in by_step], fast, title)


def newton_schulz_explorer(picture: str | None = None) -> Explorer:
    """Spread × dtype × steps."""
    controls = {
        "decades": ipywidgets.FloatSlider(value=3, min=0, max=6, step=0.5, description="spread (decades)"),
        "dtype": ipywidgets.Dropdown(options=list(DTYPES), description="products in"),
        "steps": ipywidgets.Dropdown(options=list(WAYS)),
    }
    return Explorer(newton_schulz_figure, controls, picture=picture, title="Newton-Schulz, step by step")
