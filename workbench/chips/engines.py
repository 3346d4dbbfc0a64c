"""Serving and training engines: what software adds to the kernels, in a handful of constants for each.

Source: data/chips/engines.json, each constant with an interval and an origin; `fitted` ones come from
`python -m workbench.chips.validation`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from workbench.chips.catalog import unknown
from workbench.chips.topology import Constant

_FILE = Path(__file__).parents[1] / "data" / "chips" / "engines.json"


@dataclass(frozen=True)
class Engine:
    """One software stack. Seconds of a layer and of a pass come on top of the kernels' own launches.

    draft_s: what each pass of a draft head adds: sampling, and the start of a graph of its own;
    launch_share: part of a kernel's launch in a benchmark that is left where a graph is replayed;
    slowdown: time of kernels inside the engine over their time in a benchmark; dispatch_s, older_dispatch_s
    and arm_dispatch_s: time the host takes to start one operation where no graph is replayed (prefill):
    beside Blackwell on x86, beside Hopper and all before it, and on an Arm host; memory_share: of the
    chip's memory that may be filled; reserve_bytes: what graphs and buffers take of that; scatter: the
    logarithm that nine rows in ten stay within, beyond what the other constants' intervals explain.
    """

    name: str
    layer_s: Constant
    step_s: Constant
    draft_s: Constant
    launch_share: Constant
    slowdown: Constant
    dispatch_s: Constant
    older_dispatch_s: Constant
    arm_dispatch_s: Constant
    memory_share: Constant
    reserve_bytes: Constant
    scatter: Constant

    def replace(self, **values: float) -> Engine:
        """A copy with other values, their intervals moved along."""
        changes = {}
        for name, value in values.items():
            old = getattr(self, name)
            if not isinstance(old, Constant):
                raise ValueError(f"Engine.replace: {name} is no constant; choose one of {list(CONSTANTS)}")
            changes[name] = dataclasses.replace(
                old, value=value, lower=min(old.lower, value), upper=max(old.upper, value)
            )
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


CONSTANTS = tuple(f.name for f in dataclasses.fields(Engine) if f.type == "Constant")


@lru_cache(maxsize=1)
def _engines() -> dict[str, Engine]:
    stored = json.loads(_FILE.read_text(encoding="utf-8"))
    return {
        name: Engine(name, **{key: Constant(*entry[key]) for key in CONSTANTS})
        for name, entry in stored.items()
        if not name.startswith("_")
    }


def engines() -> list[str]:
    """The names that `engine` knows."""
    return sorted(_engines())


def engine(name: str) -> Engine:
    """An engine by name.

    Raises:
        ValueError: no engine of that name; the message lists the closest.
    """
    if name not in _engines():
        raise ValueError(unknown("engine: software", name, engines()))
    return _engines()[name]
