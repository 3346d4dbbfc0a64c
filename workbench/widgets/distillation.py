"""Move between forward and reverse KL and watch which part of a teacher a narrow student keeps."""

import ipywidgets
import plotly.graph_objects as go
import torch
from torch import Tensor

from workbench.distillation.divergences import divergence
from workbench.plots.distillation import covering_plot
from workbench.widgets.explorer import Explorer

WORDS = 60


def bell(center: Tensor, width: Tensor) -> Tensor:
    """Logits of a bell over the words: centre and width of any shape -> (..., WORDS)."""
    place = torch.arange(WORDS, dtype=torch.float64)
    return -0.5 * ((place - center[..., None]) / width[..., None]) ** 2


def two_bells(distance: float, share: float) -> Tensor:
    """Logits of a teacher that says one of two things: (WORDS,)."""
    middle = (WORDS - 1) / 2
    centers = torch.tensor([middle - distance / 2, middle + distance / 2], dtype=torch.float64)
    own = bell(centers, torch.tensor([3.0, 3.0], dtype=torch.float64)).log_softmax(dim=-1)
    parts = torch.tensor([share, 1 - share], dtype=torch.float64).log()
    return (own + parts[:, None]).logsumexp(dim=0)


def best_bell(teacher: Tensor, beta: float) -> tuple[Tensor, float]:
    """The one bell with the least divergence, over a grid of centres and widths: its logits, the least."""
    centers, widths = torch.meshgrid(
        torch.linspace(0, WORDS - 1, 119, dtype=torch.float64),
        torch.linspace(1.5, 20, 38, dtype=torch.float64),
        indexing="ij",
    )
    students = bell(centers, widths).flatten(0, 1)
    found = divergence(students, teacher.expand_as(students), beta)
    best = int(found.argmin())
    return students[best], float(found[best])


def covering_figure(beta: float, distance: float, share: float) -> go.Figure:
    """A teacher of two bells and the best single bell at this beta, beside those of both KLs."""
    teacher = two_bells(distance, share)
    rows = [{"who": "teacher", "word": i, "p": p} for i, p in enumerate(teacher.softmax(-1).tolist())]
    titles = {0.0: "forward KL", 1.0: "reverse KL"}
    titles[beta] = titles.get(beta, f"JSD, β = {beta:g}")
    for at, name in titles.items():
        student, _ = best_bell(teacher, at)
        rows += [{"who": name, "word": i, "p": p} for i, p in enumerate(student.softmax(-1).tolist())]
    return covering_plot(rows, f"One bell for two, {distance:g} words apart")


def covering_explorer(picture: str | None = None) -> Explorer:
    """Sliders for beta, how far the teacher's two answers are apart, and how often it gives the first."""
    controls = {
        "beta": ipywidgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.05),
        "distance": ipywidgets.FloatSlider(24, min=0, max=44, step=2),
        "share": ipywidgets.FloatSlider(0.6, min=0.05, max=0.95, step=0.05),
    }
    return Explorer(covering_figure, controls, picture=picture, title="Which part of the teacher?")
