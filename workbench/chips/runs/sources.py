"""Published and assumed numbers on faults, and on what makes training on Ascend hard, with their bands.

Source: data/chips/training_faults.json; the file says of every value where it comes from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from workbench.chips.catalog import FOLDER, unknown
from workbench.chips.quantity import Quantity
from workbench.chips.runs.faults import Faults
from workbench.units import HOUR_S

End = Literal["value", "lower", "upper"]


@dataclass(frozen=True)
class Difficulty:
    """One thing that makes training on Ascend hard: as it is taken, at its easy end, at its hard end.

    field: the argument it moves; values are numbers or names.
    """

    name: str
    field: str
    value: Any
    lower: Any
    upper: Any
    kind: str
    confidence: str
    source: str
    why: str


def fault_quantities(name: str) -> dict[str, Quantity]:
    """Rates and times of one kind of cluster, each with its band and source.

    Raises:
        ValueError: no cluster of that name; the message lists the closest.
    """
    document = _document()
    names = [key for key in document if not key.startswith("_") and key != "ascend"]
    if name not in names:
        raise ValueError(unknown("fault_quantities: cluster", name, names))
    return {
        field: Quantity(value, document["_units"][field], source, kind, confidence, lower, upper)
        for field, (value, lower, upper, kind, confidence, source) in document[name].items()
    }


def load_faults(name: str, ends: dict[str, End] | None = None) -> Faults:
    """Faults of one kind of cluster, some of its quantities at one end of their band.

    Raises:
        ValueError: no cluster, quantity or end of that name.
    """
    found, ends = fault_quantities(name), ends or {}
    for field, end in ends.items():
        if field not in found or end not in ("value", "lower", "upper"):
            raise ValueError(
                f"load_faults: got {field!r} at {end!r}; quantities are {sorted(found)}, at 'value', 'lower' "
                f"or 'upper'; choose among these"
            )

    def at(field: str) -> float:
        number = getattr(found[field], ends.get(field, "value"))
        assert number is not None
        return float(number)

    return Faults(
        fault_rate=at("faults_per_chip_hour") / HOUR_S, restart_s=at("restart_s"), save_s=at("save_s"),
        flap_rate=at("flaps_per_chip_day") / (24 * HOUR_S), flap_s=at("flap_s"), spread=at("spread"),
    )  # fmt: skip


def difficulties() -> list[Difficulty]:
    """What makes training on Ascend hard, one parameter each; faults take their bands from the 910C's."""
    faults = fault_quantities("ascend-910c")
    found = []
    for entry in _document()["ascend"]:
        if entry["field"] in faults:
            q = faults[entry["field"]]
            ends = {"value": q.value, "lower": q.lower, "upper": q.upper}
            entry = {**entry, **ends, "kind": q.kind, "confidence": q.confidence, "source": q.source}
        found.append(Difficulty(**entry))
    return found


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "training_faults.json").read_text(encoding="utf-8"))
    return document
