"""Errors by family, of all rows and of systems that no constant was fitted to: what a fit stores.

Source: data/chips/validation.json, written by `python -m workbench.chips.validation` (some minutes).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from workbench.chips.catalog import FOLDER
from workbench.chips.kernels import load_calibration
from workbench.chips.validation.rows import Result

FILE, PEERS = FOLDER / "validation.json", FOLDER / "peers.json"
IN_SAMPLE, LEFT_OUT = "all rows", "system left out"
# What is wished for, as median errors; the rest is shown without.
AIMS = {
    "kernel": 0.15, "decode": 0.15, "service TPOT": 0.15, "serving TPOT": 0.15, "throughput": 0.25,
    "training": 0.10,
}  # fmt: skip


@dataclass(frozen=True)
class FamilyError:
    """One family's |predicted / measured − 1|, and the share of measured values within the bounds.

    how: IN_SAMPLE or LEFT_OUT; width: the median upper bound over its prediction.
    """

    family: str
    how: str
    rows: int
    median: float
    p90: float
    inside: float | None
    width: float | None


def family_errors(results: Iterable[Result], how: str) -> list[FamilyError]:
    """Errors by family, the families in the order in which they appear; exact counts are left aside."""
    by_family: dict[str, list[Result]] = {}
    for r in results:
        if r.error is not None and r.family != "exact":
            by_family.setdefault(r.family, []).append(r)
    found = []
    for family, mine in by_family.items():
        sizes = [abs(r.error) for r in mine if r.error is not None]
        banded = [(r.lower, r.measured, r.upper, r.predicted) for r in mine if r.lower and r.upper]
        inside = [low <= m <= high for low, m, high, _ in banded if m is not None]
        width = [high / p for _, _, high, p in banded if p]
        found.append(
            FamilyError(
                family, how, len(mine), float(np.median(sizes)), float(np.quantile(sizes, 0.9)),
                float(np.mean(inside)) if inside else None, float(np.median(width)) if width else None,
            )
        )  # fmt: skip
    return found


def kernels_left_out() -> FamilyError:
    """The kernel table with each GPU's constants fitted without it, as the calibration stored it."""
    row = load_calibration().report["kernels"]["all"]
    return FamilyError(
        "kernel", LEFT_OUT, int(row["rows"]), row["gpu_left_out_median"], row["gpu_left_out_p90"], None, None
    )


def stored_text(errors: Iterable[FamilyError], seconds: float) -> str:
    """The file's text."""
    about = "Errors of the predictions by family. Written by python -m workbench.chips.validation."
    rows = [
        {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(error).items()}
        for error in errors
    ]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    return f'{{\n "about": {json.dumps(about)},\n "seconds": {seconds:.0f},\n "errors": [\n{lines}\n ]\n}}\n'


@lru_cache(maxsize=2)
def recorded(path: Path = FILE) -> tuple[FamilyError, ...]:
    """What the last fit measured about itself."""
    return tuple(FamilyError(**row) for row in json.loads(path.read_text(encoding="utf-8"))["errors"])


def peers() -> list[dict[str, Any]]:
    """Errors of other packages beside ours on the same rows, as `python -m benchmarks.chips` found them.

    Rows: {"what", "who", "rows", "median", "90th"}.
    """
    stored = json.loads(PEERS.read_text(encoding="utf-8"))
    return [row for row in stored["rows"] if "median" in row]
