"""Published points of serving: how long a token takes and how many a chip makes, to draw beside a prediction.

Rows of measurements.csv that state both; throughputs become output tokens a second and chip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from workbench.chips.catalog import FOLDER
from workbench.chips.validation.rows import Row, Unpredictable, read_measurements
from workbench.chips.validation.setup import Setup, setup_of
from workbench.chips.validation.text import number
from workbench.units import MILLISECOND_S

TABLE = FOLDER / "measurements.csv"


@dataclass(frozen=True)
class Published:
    """One measured point. rate: output tokens a second and chip (package)."""

    row: str
    model: str
    chip: str
    phase: str
    context_tokens: float
    draft_tokens: int
    interval_s: float
    rate: float
    text: str
    source: str


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All rows that time tokens under a stated throughput, in the order of the table."""
    found = []
    for row in read_measurements(TABLE):
        if row.phase not in ("decode", "service"):
            continue
        try:
            setup = setup_of(row)
        except Unpredictable:
            continue
        rate, interval = _rate(row, setup), number(row.tpot_ms)
        context = number(row.input_len)
        if rate and interval and context:
            what = f"{row.system}, {row.precision}, {row.parallelism}, batch {row.batch or '?'}"
            found.append(
                Published(
                    row.id, setup.config_name, setup.chip.key, row.phase, context, setup.draft_tokens,
                    interval * MILLISECOND_S, rate, f"{what}, {context:,.0f} in ({row.date or 'undated'})",
                    row.source,
                )
            )  # fmt: skip
    return tuple(found)


def _rate(row: Row, setup: Setup) -> float | None:
    """Output tokens a second and chip, where the row's unit says how to get there."""
    value, unit, metric = number(row.value), row.unit.lower(), row.metric.lower()
    if value is None or "tok/s" not in unit or "throughput" not in metric or "at about" in metric:
        return None
    if "in+out" in unit or "total" in metric:
        # Also the "scaled" throughputs: output times (in + out) / out.
        inn, out = number(row.input_len), number(row.output_len)
        if not inn or not out:
            return None
        value *= out / (inn + out)
    if "/die" in unit:
        return value * setup.per_chip
    if re.search(r"/(chip|gpu|npu)", unit):
        return value
    if re.search(r"\((node|cluster)\)", unit) and setup.devices:
        return value / setup.devices * setup.per_chip
    return value / 8 if "/node" in unit else None
