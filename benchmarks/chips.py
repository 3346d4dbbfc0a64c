"""Chip predictions: one setting, a sweep, the import, and aiconfigurator beside it in speed and error.

The peer runs in an environment of its own, since its pins are not ours: build/peers (python -m venv
build/peers; build/peers/bin/pip install aiconfigurator==0.12.0), or the one that PEERS names. Without it
its columns stay empty. genz-llm 0.0.16 is not run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import workbench as wb
from benchmarks.timing import seconds
from workbench.chips import Mapping, Workload, load_cluster, predict
from workbench.chips.command import DATA
from workbench.chips.predict import sweep
from workbench.chips.validation.judge import current_engines
from workbench.chips.validation.rows import read_table
from workbench.chips.validation.serving_table import NEEDED, point_result, usable_points

ROOT = Path(__file__).parents[1]
SETTINGS = 100_000
POINTS = 24
_PEER = """
import json, logging, sys, time
logging.disable(logging.CRITICAL)
from aiconfigurator.cli.api import cli_estimate
for job in json.load(sys.stdin):
    start = time.perf_counter()
    try:
        found = cli_estimate("deepseek-ai/DeepSeek-R1", **job)
        print(json.dumps([float(found.tpot), time.perf_counter() - start]))
    except Exception as error:
        print(json.dumps([None, str(error)[:80]]))
"""


def peer() -> Path | None:
    """The interpreter of the peer's environment, if there is one."""
    folder = Path(os.environ.get("PEERS", ROOT / "build" / "peers"))
    found = folder / "bin" / "python"
    return found if found.is_file() else None


def run() -> list[dict[str, Any]]:
    """Speeds of ours, then errors of both on the same serving points."""
    config, cluster = wb.load_config("deepseek-v4-pro"), load_cluster("b200", chips=8)
    load, mapping = Workload(phase="decode", batch=16.0, context_tokens=8192), Mapping(dp=8, ep=8)
    many = load.replace(batch=np.linspace(1, 512, SETTINGS))
    predict(config, cluster, load, mapping)
    one = median(seconds(lambda: predict(config, cluster, load, mapping)) for _ in range(50))
    all_s = median(seconds(lambda: sweep(config, cluster, many, mapping)) for _ in range(3))
    fresh = [sys.executable, "-X", "importtime", "-c", "import workbench.chips"]
    log = subprocess.run(fresh, capture_output=True, text=True, check=True).stderr
    took = next(int(line.split("|")[1]) for line in log.splitlines() if line.endswith("workbench.chips"))
    return [
        {"what": "one prediction", "ours": one * 1e3, "unit": "ms"},
        {"what": "sweep", "ours": SETTINGS / all_s, "unit": "settings/s"},
        {"what": "import workbench.chips", "ours": took / 1e6, "unit": "s"},
        *_side_by_side(),
    ]


def _side_by_side() -> list[dict[str, Any]]:
    """Median |error| of the time per output token on serving points that the peer has kernels for."""
    stacks = current_engines()
    table = read_table(DATA / "silicon_deepseek.csv", NEEDED)
    points = [p for p in usable_points(table) if p.row["mode"] == "agg" and point_result(p, stacks).predicted]
    points = points[:: max(len(points) // POINTS, 1)]
    ours = [point_result(p, stacks) for p in points]
    python = peer()
    if python is None:
        return [_error_row("ours", [abs(r.error or 0.0) for r in ours])]
    jobs = [_job(p.row) for p in points]
    log = subprocess.run(
        [python, "-c", _PEER], input=json.dumps(jobs), capture_output=True, text=True, check=True
    )
    theirs = [json.loads(line) for line in log.stdout.splitlines() if line.startswith("[")]
    both = [(r, t) for r, t in zip(ours, theirs, strict=True) if t[0] is not None and r.measured]
    return [
        _error_row("ours, points both can do", [abs(r.error or 0.0) for r, _ in both]),
        _error_row("aiconfigurator 0.12.0", [abs(t[0] / (r.measured or 1.0) - 1) for r, t in both]),
        {"what": "aiconfigurator, one estimate", "ours": median(t[1] for _, t in both) * 1e3, "unit": "ms"},
    ]


def _job(row: dict[str, str]) -> dict[str, Any]:
    sizes = {
        "tp_size": "tp_size", "attention_dp_size": "attention_dp_size", "moe_tp_size": "moe_tp_size",
        "moe_ep_size": "moe_ep_size",
    }  # fmt: skip
    job: dict[str, Any] = {name: int(float(row[column] or 1)) for name, column in sizes.items()}
    batch = float(row["concurrency"]) / job["attention_dp_size"]
    return job | {
        "system_name": row["system"], "backend_name": row["backend"], "mode": "agg", "isl": int(row["isl"]),
        "osl": int(row["osl"]), "batch_size": max(int(batch), 1),
    }  # fmt: skip


def _error_row(what: str, errors: list[float]) -> dict[str, Any]:
    return {
        "what": f"TPOT error, {what}",
        "ours": median(errors) if errors else None,
        "unit": f"of {len(errors)} points",
    }
