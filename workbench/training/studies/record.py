"""Where the studies' results lie, and how they are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.training.records import FOLDER, Records
from workbench.training.studies.contexts import run_contexts
from workbench.training.studies.stages import WAYS, run_stages
from workbench.training.studies.suites import RUNS, run_suites
from workbench.training.studies.text import run_text
from workbench.training.studies.variants import VARIANTS

COMMAND = "python -m workbench.training.studies"
SEEDS = (0, 1, 2)
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """What is varied, how one of it is run, and the number that names its result in a line.

    `run` takes a variant, a seed and, if it needs text, a corpus.
    """

    variants: tuple[str, ...]
    run: Callable[[str, int, Any], dict[str, Any]]
    headline: Callable[[Result], str]
    needs_text: bool = True
    seeds: tuple[int, ...] = SEEDS

    def wanted(self, seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Every variant with every seed, seed by seed."""
        return [(name, seed) for seed in seeds for name in self.variants]


STUDIES = {
    "text": Study(tuple(VARIANTS), run_text, lambda found: f"held out {found['held_out_loss']:.4f}"),
    "suites": Study(
        RUNS,
        lambda name, seed, _: run_suites(name, seed),
        lambda found: str({key: value for key, value in found.items() if key != "loss"}),
        needs_text=False,
    ),
    "contexts": Study(
        ("base",),
        lambda _, seed, __: run_contexts(seed),
        lambda found: f"selecting {found['selecting']}, reading all {found['reading all']}",
        needs_text=False,
    ),
    "stages": Study(tuple(WAYS), run_stages, lambda found: f"{found['after'][-1]}"),
}


def records(study: str) -> Records:
    """The file of a study."""
    return Records(FOLDER / f"pretraining_{study}.json", f"{COMMAND} {study}")


def read_study(study: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The recorded results by (variant, seed), with `cpu_seconds` beside what the run found.

    Raises:
        ValueError: no such study, or its file is damaged.
    """
    if study not in STUDIES:
        raise ValueError(f"read_study: got {study!r}; it needs one of {sorted(STUDIES)}; choose among those")
    return {
        (row["settings"]["variant"], row["settings"]["seed"]): {
            **row["result"],
            "cpu_seconds": row["cpu_seconds"],
        }
        for row in records(study).found.values()
    }
