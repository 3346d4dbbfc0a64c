"""Synthetic suites: documents that need exactly one ability each."""

from workbench.training.tasks.retrieval import AssociativeRecall, Induction, LocalCopy, Needles
from workbench.training.tasks.task import Sample, Score, Task, draw_samples, score
from workbench.training.tasks.whole import ModularAddition, Topic

SUITE: dict[str, Task] = {
    "associative recall": AssociativeRecall(),
    "needles": Needles(),
    "local copy": LocalCopy(),
    "induction": Induction(),
    "topic": Topic(),
    "modular addition": ModularAddition(),
}
"""One task for each ability, small enough for a vocabulary of 64."""

__all__ = [
    "SUITE",
    "AssociativeRecall",
    "Induction",
    "LocalCopy",
    "ModularAddition",
    "Needles",
    "Sample",
    "Score",
    "Task",
    "Topic",
    "draw_samples",
    "score",
]
