"""The calibrated constants of the kernel simulators: each one named, with interval, kind and source.

An id is `scope/path/name`. The scope is a generation ("hopper"), or a family ("sm") whose value every
generation without its own inherits; the path is a group of kernels that share their code ("gemm.8": dense
matrix products on 8-bit operands). The values lie in data/chips/calibration.json, which
`workbench.chips.calibration` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

CALIBRATION_FILE = Path(__file__).parents[2] / "data" / "chips" / "calibration.json"

# What each path needs, and its unit.
NAMES = MappingProxyType(
    {
        "launch": "s",  # from the call to the first tile, and from the last tile to the next kernel
        "efficiency": "1",  # share of the matrix peak that the inner loop reaches
        "step": "s",  # least time of one step of the inner loop: a pipeline stage, a barrier
        "memory": "1",  # share of the nominal memory bandwidth that a long stream reaches
        "load": "byte/s",  # what one core can load from the level-2 cache
        "warm": "1",  # share of what fits the last cache that is found there: what the kernel before left
        "ramp": "1",  # steps that a unit of attention needs to fill and drain its pipeline
        "overlap": "1",  # exponent that joins core time and memory time: 1 adds them, infinity hides one
        "scatter": "1",  # 90th percentile of |log(measured / expected)| that the model leaves unexplained
    }
)


@dataclass(frozen=True)
class Constant:
    """One number of the simulators that is not a published size or peak."""

    id: str
    value: float
    lower: float
    upper: float
    unit: str
    kind: Literal["fitted", "published", "derived", "assumed"]
    source: str
    rows: int = 0

    def __post_init__(self) -> None:
        if not self.lower <= self.value <= self.upper:
            raise ValueError(
                f"Constant: {self.id} is {self.value} outside [{self.lower}, {self.upper}]; "
                f"an interval must hold its value; mend the entry"
            )


@dataclass(frozen=True)
class Params:
    """The constants of one path on one machine, with their ends: `x`, `x_lower`, `x_upper`.

    Fields are numbers, or arrays with one entry an operation when several paths are stacked.
    """

    launch: Any
    launch_lower: Any
    launch_upper: Any
    efficiency: Any
    efficiency_lower: Any
    efficiency_upper: Any
    step: Any
    memory: Any
    memory_lower: Any
    memory_upper: Any
    load: Any
    warm: Any
    ramp: Any
    overlap: Any
    scatter: Any


class Calibration(Mapping[str, Constant]):
    """Constants by id; `generations` says to which generation a chip belongs, by key.

    `report` holds what the calibration measured about itself.
    """

    def __init__(
        self,
        constants: Mapping[str, Constant],
        generations: Mapping[str, str],
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self._constants = dict(constants)
        self.generations = dict(generations)
        self.report = dict(report or {})
        self._params: dict[tuple[str, str, tuple[str, ...]], Params] = {}

    def __getitem__(self, key: str) -> Constant:
        return self._constants[key]

    def __iter__(self) -> Any:
        return iter(self._constants)

    def __len__(self) -> int:
        return len(self._constants)

    def find(self, generation: str, family: str, path: str, name: str) -> Constant:
        """The constant of the narrowest scope that has one.

        "gemm.8" falls back to "gemm", and that to "any": first within the generation, then in the family.

        Raises:
            ValueError: no scope has it.
        """
        kernel = path.partition(".")[0]
        for scope in (generation, family):
            for where in (path, kernel, "any"):
                found = self._constants.get(f"{scope}/{where}/{name}")
                if found is not None:
                    return found
        raise ValueError(
            f"Calibration.find: {generation}/{path}/{name} is unknown; it must be given for the generation "
            f"or for the family {family!r}; calibrate the path or add an assumed value"
        )

    def params(self, generation: str, family: str, paths: tuple[str, ...]) -> Params:
        """All constants of some paths: arrays in their order, plain numbers where all are one path."""
        key = (generation, family, paths)
        if key not in self._params:
            if len(set(paths)) == 1:
                self._params[key] = self._of(generation, family, paths[0])
            else:
                found = [self._of(generation, family, path) for path in paths]
                columns = {f.name: np.array([getattr(p, f.name) for p in found]) for f in fields(Params)}
                self._params[key] = Params(**columns)
        return self._params[key]

    def _of(self, generation: str, family: str, path: str) -> Params:
        found = {name: self.find(generation, family, path, name) for name in NAMES}
        ends = {
            f"{name}_{end}": getattr(found[name], end)
            for name in ("launch", "efficiency", "memory")
            for end in ("lower", "upper")
        }
        return Params(**{name: c.value for name, c in found.items()}, **ends)


@cache
def load_calibration(path: Path = CALIBRATION_FILE) -> Calibration:
    """Read the calibration that ships with the package (or another file of the same form)."""
    data = json.loads(path.read_text(encoding="utf-8"))
    generations = {chip: name for name, chips in data["generations"].items() for chip in chips}
    constants = {row["id"]: Constant(**row) for row in data["constants"]}
    return Calibration(constants, generations, data.get("report"))
