"""Rows of measurement tables, and what comes of them: a prediction beside the measured value, or a reason."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from workbench.files import write_whole

COLUMNS = (
    "row", "table", "system", "family", "metric", "predicted", "lower", "upper", "measured", "unit", "error",
    "excluded because",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of a table of published measurements, as text; what a file lacks is empty."""

    id: str = ""
    system: str = ""
    chip: str = ""
    count: str = ""
    model: str = ""
    precision: str = ""
    phase: str = ""
    batch: str = ""
    input_len: str = ""
    output_len: str = ""
    parallelism: str = ""
    metric: str = ""
    value: str = ""
    unit: str = ""
    tpot_ms: str = ""
    ttft_ms: str = ""
    date: str = ""
    verified: str = ""
    source: str = ""
    note: str = ""

    @property
    def words(self) -> str:
        """Everything that may tell how a run was set up."""
        return f"{self.system} {self.parallelism} {self.metric} {self.source}"


@dataclass(frozen=True)
class Result:
    """A measured number beside ours; `excluded` says why there is no prediction."""

    row: str
    table: str
    system: str
    family: str
    metric: str
    measured: float | None
    unit: str
    predicted: float | None = None
    lower: float | None = None
    upper: float | None = None
    excluded: str = ""

    @property
    def error(self) -> float | None:
        """Predicted over measured, minus one."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured - 1

    def cells(self) -> dict[str, str]:
        """The row of the written table."""

        def text(value: float | None) -> str:
            return "" if value is None else f"{value:.6g}"

        return dict(zip(COLUMNS, (
            self.row, self.table, self.system, self.family, self.metric, text(self.predicted),
            text(self.lower), text(self.upper), text(self.measured), self.unit, text(self.error),
            self.excluded,
        ), strict=True))  # fmt: skip


def banded(
    row: Row, family: str, metric: str, values: Iterable[float], measured: float | None, unit: str
) -> Result:
    """A prediction beside a row's value; values: one end of the bounds, the expected one, the other end."""
    one, expected, other = (float(v) for v in values)
    return Result(
        row.id, "measurements", row.system, family, metric, measured, unit, expected, min(one, other),
        max(one, other),
    )  # fmt: skip


def asks_for(row: Row) -> str:
    """What a value is: "TPOT", "TTFT", "speed" of a user, "requests" a second, "rate" of tokens; else ""."""
    unit, metric = row.unit.lower().strip(), row.metric.lower()
    if re.match(r"(ms|us|s|seconds)\b", unit):
        if "ttft" in metric or "first token" in metric:
            return "TTFT"
        return "TPOT" if re.search(r"tpot|itl|per (output )?token|step", metric) else ""
    if "req" in unit:
        return "requests"
    return "speed" if "user" in unit or re.search(r"speed|interactivity", metric) else "rate"


def in_unit_of_time(row: Row, seconds: Iterable[float]) -> list[float]:
    """Seconds in the unit of the row's value."""
    factor = {"ms": 1e3, "us": 1e6}.get(row.unit.lower().split()[0], 1.0)
    return [float(s) * factor for s in seconds]


def cache_hit(row: Row) -> float:
    """The share of prompts that a row's note finds in a cache: "prefix cache 90%", "56.3% cache hits"."""
    words = f"{row.metric} {row.note}".lower()
    found = re.search(r"prefix cache (\d[\d.]*)|(\d[\d.]*)\s*% (?:prefix |kv |disk )?(?:cache )?hit", words)
    return min(float(found[1] or found[2]) / 100, 0.999) if found else 0.0


class Unpredictable(ValueError):
    """A row that is left out, and why."""


# What an unseen way of writing a row may raise below; it must not stop the other rows.
UNREADABLE = (
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
)


def read_table(path: Path | str, needed: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file as dictionaries of text; empty cells are "". Semicolons or tabs may part them.

    Raises:
        ValueError: the file cannot be read, or lacks a column of `needed`.
    """
    named = {name.replace(" ", "_"): name for name in needed}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count))
            plain = [name.strip().lower().replace(" ", "_") for name in reader.fieldnames or ()]
            reader.fieldnames = header = [named.get(name, name) for name in plain]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"read_table: {path} cannot be read ({error}); give the path of a CSV file"
        ) from error
    missing = sorted(set(named.values()) - set(header))
    if missing:
        raise ValueError(
            f"read_table: {path} lacks the columns {missing}; it needs {sorted(named.values())}; its header "
            f"is {header[:40]}: rename it, or give the table that belongs here"
        )
    return [{key: (value or "").strip() for key, value in row.items() if key} for row in rows]


def read_measurements(path: Path | str) -> list[Row]:
    """The rows of a table with the columns of measurements.csv."""
    names = {field.name for field in fields(Row)}
    needed = ("id", "chip", "model", "phase", "metric", "value", "unit")
    return [Row(**{k: v for k, v in row.items() if k in names}) for row in read_table(path, needed)]


def write_table(results: Iterable[Result], path: Path) -> None:
    """Write results as CSV.

    Raises:
        ValueError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.cells() for result in results)
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise ValueError(f"write_table: {path} cannot be written ({error}); give another path") from error
