"""Days of a training run on Ascend, and how each thing that makes it hard moves them.

Every parameter goes to its easy and to its hard end, all others as they are taken. Nothing of this is
measured by us: the ends come from `data/chips/training_faults.json`, and some of them are wide because nobody
has published better.
"""

from __future__ import annotations

from typing import Any

from workbench.chips.catalog import load_chip
from workbench.chips.clusters import Cluster, load_cluster
from workbench.chips.engines import engine
from workbench.chips.mapping import Mapping
from workbench.chips.precision import precision
from workbench.chips.runs.faults import goodput
from workbench.chips.runs.sources import Difficulty, difficulties, load_faults
from workbench.chips.runs.step import run_step
from workbench.chips.training_step import Recipe
from workbench.config import ModelConfig
from workbench.units import HOUR_S

_RATES = ("faults_per_chip_hour", "restart_s", "flaps_per_chip_day", "spread")


def days_of(
    config: ModelConfig, mapping: Mapping, recipe: Recipe, tokens: float, chips: int, **changes: Any
) -> dict[str, float]:
    """Days of a run on 910C, steps alone and with what goes wrong.

    changes: values of the fields of `difficulties`; a fault's field takes the name of an end. The mapping is
    one replica's. -> {"steps_days", "goodput", "days", "mfu"}

    Raises:
        ValueError: an unknown field, or as `run_step`.
    """
    taken = {d.field: d.value for d in difficulties() if d.field not in _RATES}
    unknown = changes.keys() - taken.keys() - set(_RATES)
    if unknown:
        raise ValueError(
            f"days_of: got {sorted(unknown)}; fields are {sorted((*taken, *_RATES))}; choose among these"
        )
    taken |= {name: value for name, value in changes.items() if name in taken}
    step = run_step(
        config,
        _cluster(chips, taken["link"]),
        mapping.replace(expert_imbalance=taken["expert_imbalance"]),
        _recomputing(recipe, taken["recompute"]),
        engine("mindspeed").replace(slowdown=taken["slowdown"]),
        precision=precision(taken["precision"]),
    )
    ends = {name: value for name, value in changes.items() if name in _RATES}
    useful = goodput(load_faults("ascend-910c", ends), chips)
    steps_days = tokens / (step.tokens_per_s_per_chip * chips) / HOUR_S / 24
    return {"steps_days": steps_days, "goodput": useful, "days": steps_days / useful, "mfu": step.mfu}


def hardness_rows(
    config: ModelConfig, mapping: Mapping, recipe: Recipe, tokens: float, chips: int
) -> list[dict[str, Any]]:
    """One row a parameter, the widest first: days at its easy end, as taken ("base"), at its hard end.

    -> {"parameter", "easy", "hard", "base", "easy_end", "hard_end", "kind", "confidence", "source", "why"}
    """

    def days(d: Difficulty | None = None, end: str = "value") -> float:
        moved = {} if d is None else {d.field: end if d.field in _RATES else getattr(d, end)}
        return days_of(config, mapping, recipe, tokens, chips, **moved)["days"]

    base = days()
    rows = [
        {
            "parameter": d.name, "easy": days(d, "lower"), "hard": days(d, "upper"), "base": base,
            "easy_end": d.lower, "hard_end": d.upper, "kind": d.kind, "confidence": d.confidence,
            "source": d.source, "why": d.why,
        }
        for d in difficulties()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row["easy"] - row["hard"])


def _cluster(chips: int, link: float) -> Cluster:
    """So many 910C whose links carry this share of what was measured on average."""
    chip = load_chip("ascend-910c")
    if link != 1:
        changes = {
            name: link * float(value)
            for name in ("scaleup_byte_per_s", "scaleout_byte_per_s")
            if (value := getattr(chip, name)) is not None
        }
        chip = chip.replace(**changes, key=chip.key)
    return load_cluster("ascend-910c", chips=chips, chip=chip)


def _recomputing(recipe: Recipe, policy: str) -> Recipe:
    fields = {**vars(recipe), "recompute": policy}
    return Recipe(**fields)
