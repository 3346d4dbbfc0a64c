"""The measured kernel rows of one table, and what the fits group them by."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.chips.kernel_rows import Row, Rows, excluded
from workbench.chips.kernels.constants import CALIBRATION_FILE, NAMES, Calibration, Constant
from workbench.units import MICROSECOND_S

ROWS_FILE = CALIBRATION_FILE.with_name("kernels_nvidia.csv")
ASCEND_FILE = CALIBRATION_FILE.with_name("kernels_ascend.csv")
ASSUMPTIONS_FILE = CALIBRATION_FILE.with_name("kernel_assumptions.json")
SHAPE = ("op", "model_or_shape", "dtype", "ep_or_world", "batch_or_tokens", "seq_or_bytes")


def read_rows(path: Path = ROWS_FILE) -> list[Row]:
    """The rows of a kernel table that one chip's simulator predicts."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if excluded(row) is None]


def read_assumptions() -> dict[str, Any]:
    """The document of assumed constants and generations."""
    document: dict[str, Any] = json.loads(ASSUMPTIONS_FILE.read_text(encoding="utf-8"))
    return document


def assumed() -> Calibration:
    """The constants before any fit."""
    document = read_assumptions()
    constants = {
        row["id"]: Constant(unit=NAMES[row["id"].rpartition("/")[2]], **row) for row in document["constants"]
    }
    generations = {chip: name for name, chips in document["generations"].items() for chip in chips}
    return Calibration(constants, generations)


class Table(Rows):
    """Measured rows as operations, with their GPU, generation, shape and time.

    Shapes: gpu, op, generation, shape, measured (r,).
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        generations = assumed().generations
        self.gpu = np.array([row["gpu"] for row in self.rows])
        self.op = np.array([row["op"] for row in self.rows])
        self.generation = np.array([generations.get(self.chips[gpu].key, "") for gpu in self.gpu])
        self.shape = np.array(["/".join(row[name] for name in SHAPE) for row in self.rows])
        self.measured = np.array([float(row["latency_us"]) * MICROSECOND_S for row in self.rows])

    def where(self, mask: npt.NDArray[np.bool_]) -> Table:
        """Some of the rows, without laying them out again. Shapes: mask (r,)."""
        part = object.__new__(Table)
        part.keep(self, mask)
        for name in ("gpu", "op", "generation", "shape", "measured"):
            setattr(part, name, getattr(self, name)[mask])
        return part
