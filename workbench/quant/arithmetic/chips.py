"""The arithmetic of each chip, as far as it is known: one table, every row with its source.

Source: workbench/data/arithmetics.json.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.quant.arithmetic.matmul import Arithmetic
from workbench.quant.arithmetic.roles import ROLES, Role
from workbench.quant.arithmetic.units import CDNA3Unit, FloatUnit, IntegerUnit, Unit

_FILE = Path(__file__).parents[2] / "data" / "arithmetics.json"
_UNITS: dict[str, type[Unit]] = {"float": FloatUnit, "cdna3": CDNA3Unit, "integer": IntegerUnit}

Kind = Literal["published", "measured", "assumed"]


@dataclass(frozen=True)
class ChipArithmetic:
    """How one chip computes the products of a V4 layer, by their role.

    `kind` and `source` speak of the formats; `unit_kinds` and `unit_sources` of the matrix unit of each role:
    "measured" on the chip by the publication named, "published" by its maker, or "assumed".
    """

    name: str
    vendor: str
    experts: Arithmetic
    linear: Arithmetic
    plain: Arithmetic
    kind: Kind
    source: str
    note: str
    unit_kinds: Mapping[Role, Kind]
    unit_sources: Mapping[Role, str]

    def of(self, role: Role) -> Arithmetic:
        """The arithmetic of one role."""
        return {"experts": self.experts, "linear": self.linear, "plain": self.plain}[role]


def chip_arithmetic(name: str) -> ChipArithmetic:
    """One chip's row of ARITHMETICS.

    Raises:
        ValueError: no chip of that name; the message lists the closest.
    """
    if name not in ARITHMETICS:
        close = difflib.get_close_matches(name, ARITHMETICS, 3)
        raise ValueError(
            f"chip_arithmetic: {name!r} is unknown; it needs a row of arithmetics.json; did you mean "
            f"{' or '.join(close) or sorted(ARITHMETICS)}"
        )
    return ARITHMETICS[name]


def _unit(row: Mapping[str, Any]) -> Unit:
    (kind,) = row.keys() & _UNITS.keys()
    return _UNITS[kind](**row[kind])


def _read(table: Mapping[str, Any]) -> dict[str, ChipArithmetic]:
    units, chips = table["units"], {}
    for name, listed in table["chips"].items():
        row = table["chips"][listed["same_as"]] if "same_as" in listed else listed
        products: dict[Role, dict[str, Any]] = {role: dict(row[role]) for role in ROLES}
        used: dict[Role, dict[str, Any]] = {role: units[products[role].pop("unit")] for role in ROLES}
        chips[name] = ChipArithmetic(
            name=name,
            vendor=row["vendor"],
            **{role: Arithmetic(_unit(used[role]), **products[role]) for role in ROLES},
            kind=row["kind"],
            source=row["source"],
            note=row["note"],
            unit_kinds={role: unit["kind"] for role, unit in used.items()},
            unit_sources={role: unit["source"] for role, unit in used.items()},
        )
    return chips


ARITHMETICS: Mapping[str, ChipArithmetic] = _read(json.loads(_FILE.read_text(encoding="utf-8")))
