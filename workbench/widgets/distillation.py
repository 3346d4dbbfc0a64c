"""Explorers: what a narrow student keeps of a teacher, and how a campaign may hide among honest users."""

from functools import cache

import ipywidgets
import plotly.graph_objects as go
import torch
from torch import Tensor

from workbench.distillation.detection import Tuned, tune
from workbench.distillation.detectors import scores
from workbench.distillation.divergences import divergence
from workbench.distillation.gateway import KNOWN, Kind, simulate
from workbench.plots.distillation import covering_plot
from workbench.plots.extraction import scores_figure
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


DAYS, FALSE_POSITIVES = 7, 0.01


@cache
def _tuned() -> Tuned:
    """A detector set once, on the known styles."""
    return tune(simulate(600, [(kind, 2) for kind in KNOWN], days=DAYS, seed=0), DAYS)


def campaign_figure(accounts: int, queries: float, cover: float, payment: float) -> go.Figure:
    """A week of one campaign among 300 honest accounts, judged by the rarer of its own and its linked scores.

    Args:
        queries: of an account and day, in the median; cover: the share of them that are a real user's.
        payment: accounts that share a means of payment.
    """
    kind = Kind(
        "campaign", True, queries, 0.5, 64, 0.8, 0.0, 0.5, cover == 0,
        network=payment, payment=payment, cover=cover, accounts=accounts,
    )  # fmt: skip
    log = simulate(300, [(kind, 1)], days=DAYS, seed=1)
    value = _tuned().combine(log, scores(log, DAYS), "either")
    threshold = _tuned().threshold("either", FALSE_POSITIVES)
    caught = (value[log.is_attack] > threshold).mean()
    harvest = int(log.is_harvest.sum())
    title = f"{harvest:,} answers harvested in a week; {caught:.0%} of the accounts stand out"
    return scores_figure(value[~log.is_attack], value[log.is_attack], threshold, title)


def campaign_explorer(picture: str | None = None) -> Explorer:
    """Sliders for a campaign's accounts, their queries, the real users among them, and shared payments."""
    controls = {
        "accounts": ipywidgets.IntSlider(40, min=1, max=200),
        "queries": ipywidgets.FloatLogSlider(40, base=10, min=0.5, max=3, step=0.25),
        "cover": ipywidgets.FloatSlider(0.0, min=0.0, max=0.95, step=0.05),
        "payment": ipywidgets.IntSlider(8, min=1, max=20),
    }
    return Explorer(campaign_figure, controls, picture=picture, title="Can a campaign hide?")
