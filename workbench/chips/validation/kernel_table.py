"""The table of measured kernel times: products, experts, attention modules, mixing, collectives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from workbench.chips.catalog import FOLDER, load_chip
from workbench.chips.collectives import collective_time, expert_time
from workbench.chips.kernel_rows import Rows, excluded, operations_of
from workbench.chips.kernels import Calibration
from workbench.chips.operations import Operation
from workbench.chips.topology import topology_of
from workbench.chips.validation.rows import UNREADABLE, Result, Unpredictable, read_table
from workbench.chips.validation.setup import cluster_of
from workbench.chips.validation.text import chip_of, number
from workbench.chips.validation.wording import plain_kernel
from workbench.units import MICROSECOND_S

_COLLECTIVES = {
    "all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}  # fmt: skip
TABLE = FOLDER / "kernels_nvidia.csv"
NEEDED = (
    "gpu", "op", "model_or_shape", "dtype", "tp", "ep_or_world", "batch_or_tokens", "seq_or_bytes", "n", "k",
    "distribution", "latency_us", "kernel",
)  # fmt: skip
NO_TIME = "the sizes in the row lead to no time"


def table_results(path: Path | str, calibration: Calibration | None = None) -> list[Result]:
    """Every row of a kernel table: products, experts, attention modules, mixing, and collectives.

    Raises:
        ValueError: the file cannot be read, or lacks a column.
    """
    rows, results = [plain_kernel(row) for row in read_table(path, NEEDED)], []
    kernels: list[Timed] = []
    for number_, row in enumerate(rows, start=1):
        key = chip_of(row["gpu"])
        if key is None:
            results.append(_excluded(number_, row, f"chip {row['gpu']!r} is not in the catalog"))
        elif reason := _no_duration(row):
            results.append(_excluded(number_, row, reason))
        elif row["op"] in _COLLECTIVES or row["op"].startswith("ep_"):
            results.append(_collective(number_, row, key))
        else:
            try:
                if reason := excluded(row | {"gpu": key}):
                    raise Unpredictable(reason)
                kernels.append(Timed(number_, row, operations_of(row | {"gpu": key})))
            except UNREADABLE as error:
                results.append(_excluded(number_, row, _why(error)))
    return sorted([*results, *_timed(kernels, calibration)], key=lambda r: int(r.row))


@dataclass(frozen=True)
class Timed:
    """A row of the kernel table, by its number in the file, and the operations that it timed."""

    number: int
    row: dict[str, str]
    operations: list[Operation]


def _timed(kernels: list[Timed], calibration: Calibration | None) -> list[Result]:
    """All kernels in one go; where one of them stops the others, each by itself."""
    if not kernels:
        return []
    rows = [k.row | {"gpu": str(chip_of(k.row["gpu"]))} for k in kernels]
    try:
        seconds = Rows(rows, [k.operations for k in kernels]).predict(calibration)
    except UNREADABLE as error:
        if len(kernels) > 1:
            return [result for k in kernels for result in _timed([k], calibration)]
        return [_excluded(kernels[0].number, kernels[0].row, _why(error))]
    results = []
    for k, times in zip(kernels, seconds.T / MICROSECOND_S, strict=True):
        lower, expected, upper = (float(t) for t in times)
        if not 0 < expected < math.inf:
            results.append(_excluded(k.number, k.row, f"{NO_TIME}: {expected} us"))
            continue
        results.append(
            Result(
                str(k.number), "kernels", k.row["gpu"], "kernel", k.row["op"], float(k.row["latency_us"]),
                "us", expected, lower, upper,
            )
        )  # fmt: skip
    return results


def _no_duration(row: dict[str, str]) -> str | None:
    try:
        is_time = 0 < float(row["latency_us"]) < float("inf")
    except ValueError:
        is_time = False
    return None if is_time else f"the time is {row['latency_us']!r}: not a duration"


def _why(error: BaseException) -> str:
    if isinstance(error, Unpredictable):
        return str(error)
    return f"the row cannot be read: {type(error).__name__} {error}"


def _collective(number_: int, row: dict[str, str], key: str) -> Result:
    chip = load_chip(key)
    words = row["ep_or_world"]
    count = number(words) or 1
    try:
        if row["op"] in _COLLECTIVES:
            cluster = cluster_of(key, max(int(count), 1))
            size = float(row["seq_or_bytes"])
            time = collective_time(_COLLECTIVES[row["op"]], size, int(count), topology_of(cluster))  # type: ignore[arg-type]
        else:
            # Nodes of the collector: four GPUs where a tray holds four.
            node = 4 if (chip.scaleup_chips or 8) > 16 else 8
            ranks = int(count) * node if "node" in words else int(count)
            _, hidden, top, _, _ = row["model_or_shape"].split()
            traffic = expert_time(
                float(row["batch_or_tokens"]),
                int(hidden),
                int(top[3:]),
                ranks,
                topology_of(cluster_of(key, ranks)),
            )
            time = traffic.dispatch if "dispatch" in row["op"] else traffic.combine
        if not 0 < float(time.expected) < math.inf:
            raise Unpredictable(f"{NO_TIME}: {time.expected} s")
    except UNREADABLE as error:
        return _excluded(number_, row, _why(error))
    expected, lower, upper = (float(t) / MICROSECOND_S for t in (time.expected, time.lower, time.upper))
    return Result(
        str(number_), "kernels", row["gpu"], "collective", row["op"], float(row["latency_us"]), "us",
        expected, lower, upper,
    )  # fmt: skip


def _excluded(number_: int, row: dict[str, str], reason: str) -> Result:
    measured = number(row.get("latency_us", ""))
    return Result(
        str(number_), "kernels", row["gpu"], "kernel", row.get("op", ""), measured, "us", excluded=reason
    )
