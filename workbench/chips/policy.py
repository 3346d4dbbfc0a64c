"""Which chip may go to China, by date: total processing power, performance density, and the rules in force.

    TPP = 2 × MacTOPS × bits = dense TOPS × bits, the largest over all formats, over all dies of a package
    performance density = TPP / die area in mm²

A panel of facts, not legal advice. Only US-origin or US-technology items fall under these rules: a Chinese
chip carries its numbers for comparison. A number that is not known leaves the outcome open.

Source: BIS rules of October 2022, October 2023, December 2024 and January 2026; data/chips/policy.json.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.chips.catalog import FOLDER, Chip
from workbench.units import GB

# MXFP6 is left out, as in the published figures: at the rate of FP4 it would make an MI355X 60,396.
BITS = {
    "fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "mxfp8": 8, "hif8": 8, "int8": 8,
    "fp4": 4, "mxfp4": 4, "nvfp4": 4, "int4": 4,
}  # fmt: skip
_STRICTNESS = ("free", "use warned of", "notice", "licence", "denied")


@dataclass(frozen=True)
class Finding:
    """One rule that was in force: whether the chip meets it (None: a number is missing), and the numbers."""

    rule: str
    applies: bool | None
    outcome: str
    text: str
    source: str
    confidence: str


@dataclass(frozen=True)
class Standing:
    """What the rules of a day say about a chip.

    outcome: "free", "notice" (licence exception with notice), "licence", "case by case", "denied" (licence
    presumed to be denied), "open" (a missing number decides), "use warned of", or "not under US rules".
    """

    chip: str
    date: datetime.date
    outcome: str
    tpp: float | None
    performance_density: float | None
    findings: tuple[Finding, ...]


def total_processing_power(chip: Chip) -> float | None:
    """Dense TOPS × bits, the largest over the formats whose peak is known; None if none is.

    Vector units are left out. TF32 counts as 32 bits.
    """
    rates = [peak / 1e12 * BITS[name] for name, peak in chip.peak_flop_per_s.items() if name in BITS]
    return max(rates, default=None)


def performance_density(chip: Chip) -> float | None:
    """TPP / die area in mm²; None if one of the two is not known.

    The catalog's area is the whole die; the rule counts non-planar logic only, at most as much.
    """
    tpp = total_processing_power(chip)
    return None if tpp is None or chip.die_mm2 is None else tpp / chip.die_mm2


def standing(chip: Chip, date: datetime.date | str) -> Standing:
    """The rules in force on a day, for a chip of the catalog or one made with `Chip.replace`.

    Raises:
        ValueError: a date that is none.
    """
    day = _day(date)
    document = _document()
    metrics = {
        "tpp": total_processing_power(chip),
        "performance_density": performance_density(chip),
        "io_gb_per_s": None if chip.scaleup_byte_per_s is None else 2 * chip.scaleup_byte_per_s / GB,
        "dram_gb_per_s": None if chip.memory_byte_per_s is None else chip.memory_byte_per_s / GB,
    }
    findings = []
    strictest, possible, relaxed = "free", "free", None
    is_subject = chip.vendor in document["us_vendors"]
    for rule in document["rules"]:
        first, last = (None if d is None else _day(d) for d in rule["in_force"])
        if (first and day < first) or (last and day > last):
            continue
        applies = _applies(rule, chip, metrics)
        outcome = rule["outcome"]
        findings.append(
            Finding(rule["key"], applies, outcome, rule["text"], rule["source"], rule["confidence"])
        )
        if rule.get("relaxes"):
            relaxed = (applies, outcome)
        elif applies is not False and (is_subject or "chips" in rule):
            possible = max(possible, outcome, key=_STRICTNESS.index)
            strictest = max(strictest, outcome, key=_STRICTNESS.index) if applies else strictest
    outcome = strictest if strictest == possible else "open"
    if relaxed and outcome in ("denied", "licence"):
        outcome = {True: relaxed[1], False: outcome, None: "open"}[relaxed[0]]
    if not is_subject and outcome == "free":
        outcome = "not under US rules"
    return Standing(
        chip.key, day, outcome, metrics["tpp"], metrics["performance_density"], tuple(findings)
    )  # fmt: skip


def standings(chips: Iterable[Chip], date: datetime.date | str) -> list[dict[str, Any]]:
    """The panel as rows: {"chip", "name", "vendor", "tpp", "performance_density", "outcome", "rules"}."""
    rows = []
    for chip in chips:
        s = standing(chip, date)
        rows.append(
            {
                "chip": chip.key, "name": chip.name, "vendor": chip.vendor, "tpp": s.tpp,
                "performance_density": s.performance_density, "outcome": s.outcome,
                "rules": [f.rule for f in s.findings if f.applies],
            }
        )  # fmt: skip
    return rows


def _applies(rule: dict[str, Any], chip: Chip, metrics: dict[str, float | None]) -> bool | None:
    """Whether a rule's condition holds; None where an unknown number decides."""
    if "chips" in rule:
        return chip.key.removesuffix("-custom") in rule["chips"] and not chip.key.endswith("-custom")
    if "any" not in rule:
        return False
    ways = [_all(_meets(metrics[name], sign, limit) for name, sign, limit in way) for way in rule["any"]]
    return True if True in ways else None if None in ways else False


def _all(limits: Iterable[bool | None]) -> bool | None:
    met = list(limits)
    return False if False in met else None if None in met else True


def _meets(value: float | None, sign: str, limit: float) -> bool | None:
    if value is None:
        return None
    return value >= limit if sign == ">=" else value < limit


def _day(date: datetime.date | str) -> datetime.date:
    if isinstance(date, datetime.date):
        return date
    try:
        return datetime.date.fromisoformat(date)
    except ValueError as error:
        raise ValueError(
            f"standing: date {date!r} is no day; it needs year-month-day; write for example '2026-01-15'"
        ) from error


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "policy.json").read_text(encoding="utf-8"))
    return document
