"""Fit the engines, leave each system out, and write data/chips/engines.json and validation.json."""

from __future__ import annotations

import json
import time

from workbench.chips.catalog import FOLDER
from workbench.chips.validation.fit import write_engines
from workbench.chips.validation.judge import current_engines, validate
from workbench.chips.validation.leave_out import cases, fit_all, left_out, with_scatter
from workbench.chips.validation.recorded import (
    FILE,
    IN_SAMPLE,
    LEFT_OUT,
    family_errors,
    kernels_left_out,
    stored_text,
)
from workbench.files import write_whole

TABLES = [FOLDER / f"{name}.csv" for name in ("measurements", "kernels_nvidia", "silicon_deepseek")]


def main() -> None:
    """Takes some minutes: every system has fits of its own."""
    start = time.perf_counter()
    measurements, kernels, serving = TABLES
    found, path = cases(measurements, serving), FOLDER / "engines.json"
    engines, fits = fit_all(found, current_engines())
    for fit in fits:
        print(
            f"{fit.engine:12s} {fit.rows:4d} results", {k: float(f"{v:.4g}") for k, v in fit.values.items()}
        )
    apart = left_out(found, engines)
    engines = with_scatter(engines, apart)
    write_engines(engines.values(), path, json.loads(path.read_text(encoding="utf-8"))["_about"])
    errors = family_errors(validate(measurements, kernels, serving, engines), IN_SAMPLE)
    errors += [kernels_left_out(), *family_errors((r for rs in apart.values() for r in rs), LEFT_OUT)]
    write_whole(FILE, stored_text(errors, time.perf_counter() - start))
    for error in errors:
        inside = "" if error.inside is None else f", {error.inside:.0%} within bounds"
        print(
            f"{error.family:13s} {error.how:16s} {error.rows:5d} rows: median {error.median:.1%}, "
            f"nine in ten below {error.p90:.1%}{inside}"
        )


if __name__ == "__main__":
    main()
