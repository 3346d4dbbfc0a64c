"""Pick a problem and read what a policy wrote before and after training; bend the law of lengths."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from workbench.plots.reasoning import lengths_figure, traces_figure
from workbench.reasoning.evaluation import Evaluation
from workbench.reasoning.restarts import restarted_law
from workbench.widgets.explorer import Explorer

Row = Mapping[str, Any]


def trace_rows(policies: Mapping[str, Evaluation], answers: int = 3) -> list[Row]:
    """Rows of `traces_figure` from evaluations on the same problems.

    First comes the problem on which the last policy gained most over the first.
    """
    right = [each.is_right[:, :answers].mean(axis=1) for each in policies.values()]
    order = np.argsort(right[0] - right[-1], kind="stable").tolist()
    return [
        {
            "problem": number,
            "question": evaluation.problems[i].question,
            "policy": name,
            "text": evaluation.text(i, j),
            "is_right": bool(evaluation.is_right[i, j]),
        }
        for name, evaluation in policies.items()
        for number, i in enumerate(order)
        for j in range(min(answers, evaluation.is_right.shape[1]))
    ]


def traces_explorer(rows: Sequence[Row], picture: str | None = None) -> Explorer:
    """A slider for the problem."""
    last = max(row["problem"] for row in rows)
    controls = {"problem": ipywidgets.IntSlider(0, 0, last)}
    return Explorer(partial(traces_figure, rows), controls, picture=picture, title="Read the answers")


def restarts_figure(lengths: Sequence[int], hazard: float) -> go.Figure:
    """The law of lengths before, and after restarting at a hazard a token."""
    values, counts = np.unique(np.asarray(lengths), return_counts=True)
    share = counts / counts.sum()
    after = restarted_law(values, share, hazard)
    rows = [
        {"series": "without interruptions", "tokens": int(n), "share": float(p), "is_law": False}
        for n, p in zip(values, share, strict=True)
    ]
    rows += [
        {"series": "restarted from scratch", "tokens": int(n), "share": float(p), "is_law": False}
        for n, p in zip(values, after, strict=True)
    ]
    mean = float(values @ after)
    return lengths_figure(rows, f"Mean length {float(values @ share):.1f}, after restarts {mean:.1f} tokens")


def restarts_explorer(lengths: Sequence[int], picture: str | None = None) -> Explorer:
    """A slider for the chance that a token is followed by an interruption."""
    controls = {"hazard": ipywidgets.FloatSlider(0.05, min=0.0, max=0.3, step=0.01)}
    return Explorer(
        partial(restarts_figure, lengths), controls, picture=picture, title="Interrupted, and started again"
    )
