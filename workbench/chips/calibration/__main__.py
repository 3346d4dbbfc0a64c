"""Fit, validate, and write data/chips/calibration.json."""

from __future__ import annotations

import json
from dataclasses import asdict

from workbench.chips.calibration.ascend import fit_ascend
from workbench.chips.calibration.fit import fit_all, with_constants
from workbench.chips.calibration.table import Table, read_assumptions, read_rows
from workbench.chips.calibration.validation import validate
from workbench.chips.kernels.constants import CALIBRATION_FILE
from workbench.files import write_whole

ABOUT = "Constants of the kernel simulators. Written by python -m workbench.chips.calibration."


def main() -> None:
    """Takes some minutes: a dozen fits for the validation."""
    table = Table(read_rows())
    calibration = fit_all(table)
    ascend, ascend_report = fit_ascend(calibration)
    calibration = with_constants(calibration, ascend)
    report = {"kernels": validate(table, calibration), "ascend": ascend_report}
    rows = [
        {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(constant).items()}
        for constant in calibration.values()
    ]
    lines = [
        "{",
        f' "about": {json.dumps(ABOUT)},',
        f' "generations": {json.dumps(read_assumptions()["generations"])},',
        f' "report": {json.dumps(report, indent=1)},',
        ' "constants": [',
        ",\n".join(f"  {json.dumps(row)}" for row in rows),
        " ]",
        "}",
    ]
    write_whole(CALIBRATION_FILE, "\n".join(lines) + "\n")
    print(f"{len(calibration)} constants -> {CALIBRATION_FILE.name}")
    for name, row in report["kernels"].items():
        print(f"{name:22s} {row}")
    print(ascend_report)


if __name__ == "__main__":
    main()
