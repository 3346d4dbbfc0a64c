"""A number of the catalog: its value or the band it lies in, where it comes from, and how far to trust it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from workbench.units import BILLION, GB, GIB, KIB, MIB, MICROSECOND_S, TFLOP

Kind = Literal["published", "derived", "measured", "assumed"]
Confidence = Literal["A", "B", "C"]

# How the data files write a unit: the SI unit of the field, and the factor into it.
UNITS = {
    "TFLOP/s": ("flop/s", TFLOP),
    "GHz": ("Hz", BILLION),
    "GiB": ("byte", GIB),
    "MiB": ("byte", MIB),
    "KiB": ("byte", KIB),
    "GB/s": ("byte/s", GB),
    "Gb/s": ("byte/s", BILLION / 8),
    "us": ("s", MICROSECOND_S),
}


@dataclass(frozen=True)
class Quantity:
    """One number, in SI units. `value` None is unknown; `lower` and `upper` bound what sources say.

    kind as in workbench.facts; confidence A: vendor page or repository read, B: named document
    recalled, or derived, C: press and community only.
    """

    value: float | None
    unit: str
    source: str
    kind: Kind
    confidence: Confidence
    lower: float | None = None
    upper: float | None = None

    @property
    def is_banded(self) -> bool:
        return self.lower is not None and self.upper is not None

    @property
    def middle(self) -> float | None:
        """The value, or the geometric middle of the band where the value is unknown: an assumption."""
        if self.value is not None or self.lower is None or self.upper is None:
            return self.value
        return math.sqrt(self.lower * self.upper)

    def at(self, is_upper: bool) -> float | None:
        """One end of the band, or the value where there is none."""
        end = self.upper if is_upper else self.lower
        return self.value if end is None else end


def read_quantity(
    entry: Any, unit: str, *, source: str, confidence: Confidence, community_band: float
) -> Quantity:
    """A value of a data file, bare or with fields of its own, in SI units.

    Of confidence C and without a band, a value carries the community's.
    """
    fields = dict(entry) if isinstance(entry, dict) else {"value": entry}
    si, factor = UNITS.get(unit, (unit, 1))
    trust = fields.get("confidence", confidence)
    ends = {name: fields[name] * factor for name in ("lower", "upper") if fields.get(name) is not None}
    value = None if fields["value"] is None else fields["value"] * factor
    if not ends and trust == "C" and value is not None and community_band:
        ends = {"lower": value * (1 - community_band), "upper": value * (1 + community_band)}
    return Quantity(value, si, fields.get("source", source), fields.get("kind", "published"), trust, **ends)
