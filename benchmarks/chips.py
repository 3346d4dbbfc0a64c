"""Chip predictions: one setting, a sweep, the import; and aiconfigurator and genz-llm on the same rows.

Every prediction of "one, unseen" has another batch and context, so that nothing of it was computed before;
"one, seen" repeats a setting. The rows of the comparison are serving points and runs that state their layout:
each peer's error and time stand beside ours over the rows that both can do, ours timed when first asked for.
A peer that is not installed is named and left out.

Constants of ours were fitted to rows of these tables and the peers' were not;
`python -m benchmarks.chips` (some minutes) adds the errors with each system left out of the fit, and keeps
all in workbench/data/chips/peers.json.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

import workbench as wb
from benchmarks.peers.simulators import VERSIONS, Answer, Job, ask
from benchmarks.timing import seconds
from workbench.chips import Chip, Mapping, Workload, load_cluster, predict
from workbench.chips.command import DATA
from workbench.chips.predict import sweep
from workbench.chips.validation.costs import forget
from workbench.chips.validation.judge import current_engines, row_results
from workbench.chips.validation.leave_out import EVERY, cases, left_out
from workbench.chips.validation.rows import Result, Row, Unpredictable, read_measurements, read_table
from workbench.chips.validation.service import service_of
from workbench.chips.validation.serving_table import NEEDED, Point, point_result, usable_points
from workbench.chips.validation.setup import setup_of
from workbench.chips.validation.text import number
from workbench.files import write_whole

SETTINGS, SINGLES = 100_000, 200
POINTS = 36  # of the serving table, evenly spread: a peer takes one to two seconds each
_MODELS = {
    "deepseek-v3": "deepseek-ai/DeepSeek-R1", "deepseek-v4-pro": "deepseek-ai/DeepSeek-V4-Pro",
    "deepseek-v4-flash": "deepseek-ai/DeepSeek-V4-Flash",
}  # fmt: skip
_SYSTEMS = {"b200": "b200_sxm", "b300": "b300_sxm", "h100": "h100_sxm", "h200": "h200_sxm"}


def run() -> list[dict[str, Any]]:
    """Speeds of ours, then errors and speeds of all three on the same rows."""
    return [*_speeds(), *_side_by_side({})]


def _speeds() -> Iterator[dict[str, Any]]:
    config, cluster = wb.load_config("deepseek-v4-pro"), load_cluster("b200", chips=8)
    load, mapping = Workload(phase="decode", batch=16.0, context_tokens=8192), Mapping(dp=8, ep=8)
    rng = np.random.default_rng(0)
    loads = [
        load.replace(batch=float(batch), context_tokens=int(context))
        for batch, context in zip(
            rng.uniform(1, 100, SINGLES), rng.integers(1024, 49152, SINGLES), strict=True
        )
    ]
    many = load.replace(
        batch=rng.uniform(1, 512, SETTINGS), context_tokens=rng.integers(1024, 131072, SETTINGS)
    )
    predict(config, cluster, load, mapping)
    again = median(seconds(lambda: predict(config, cluster, load, mapping)) for _ in range(SINGLES))
    fresh = [seconds(lambda one=one: predict(config, cluster, one, mapping)) for one in loads]
    all_s = [seconds(lambda: sweep(config, cluster, many, mapping)) for _ in range(3)]
    python = [sys.executable, "-X", "importtime", "-c", "import workbench.chips"]
    log = subprocess.run(python, capture_output=True, text=True, check=True).stderr
    took = next(int(line.split("|")[1]) for line in log.splitlines() if line.endswith("workbench.chips"))
    yield {"what": "one prediction, seen", "ours": again * 1e3, "unit": "ms"}
    yield {"what": "one prediction, unseen", "ours": median(fresh) * 1e3, "unit": "ms"}
    yield {"what": "sweep", "ours": SETTINGS / median(all_s), "unit": "settings/s"}
    yield {"what": "import workbench.chips", "ours": took / 1e6, "unit": "s"}


def _side_by_side(apart: dict[tuple[str, str], Result]) -> Iterator[dict[str, Any]]:
    """apart: our results with constants that were fitted without the row's system, by family and row."""
    stacks = current_engines()
    points = usable_points(read_table(DATA / "silicon_deepseek.csv", NEEDED))[::EVERY]
    points = [p for p in points if point_result(p, stacks).predicted]
    runs: list[tuple[Job, Callable[[], Result]]] = [
        (_job_of_point(p), lambda p=p: point_result(p, stacks))
        for p in points[:: max(len(points) // POINTS, 1)]
    ]
    for row in read_measurements(DATA / "measurements.csv"):
        if job := _job_of_row(row):
            runs.append((job, lambda row=row: row_results(row, stacks)[0]))
    ours, took = [], []
    forget()
    for _, call in runs:
        start = time.perf_counter()
        ours.append(call())
        took.append(time.perf_counter() - start)
    for name, words in VERSIONS.items():
        answers = ask(name, [job for job, _ in runs])
        if answers is None:
            yield {
                "what": f"TPOT beside {words}",
                "note": "not installed: see benchmarks/peers/simulators.py",
            }
            continue
        yield from _compared(words, ours, apart, took, answers)
    yield _errors("all rows asked for", "ours", ours)


def _compared(
    words: str, ours: list[Result], apart: dict[tuple[str, str], Result], took: list[float],
    answers: list[Answer],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    both = [i for i, answer in enumerate(answers) if answer.tpot_ms is not None]
    reasons = sorted({answer.reason.split(":")[0] for answer in answers if answer.reason})
    if not both:
        yield {"what": f"TPOT beside {words}", "note": "no row in common: " + "; ".join(reasons)}
        return
    theirs = [
        Result(r.row, r.table, r.system, r.family, r.metric, r.measured, r.unit, answers[i].tpot_ms)
        for i, r in enumerate(ours)
    ]
    for model in ("serving", "measurements"):
        rows = [i for i in both if ours[i].table == model]
        what = {"serving": "R1 and V3 points", "measurements": "runs of measurements.csv"}[model]
        what += f" that {words.split()[0]} can do"
        if rows:
            yield _errors(f"TPOT, {what}", "ours", [ours[i] for i in rows])
            unseen = [apart[key] for i in rows if (key := (ours[i].family, ours[i].row)) in apart]
            if unseen:
                yield _errors(f"TPOT, {what}", "ours, system left out", unseen)
            yield _errors(f"TPOT, {what}", words, [theirs[i] for i in rows])
    ratios = [answers[i].seconds / took[i] for i in both]
    yield {
        "what": f"time of one answer, {words} over ours", "ours": median(took[i] for i in both) * 1e3,
        "peer": median(answers[i].seconds for i in both) * 1e3, "unit": "ms", "ratio": median(ratios),
        "note": f"{len(answers) - len(both)} of {len(answers)} rows it cannot do ({', '.join(reasons)})",
    }  # fmt: skip


def _errors(what: str, who: str, results: list[Result]) -> dict[str, Any]:
    sizes = [abs(r.error) for r in results if r.error is not None]
    return {
        "what": what, "who": who, "rows": len(sizes), "median": median(sizes),
        "90th": float(np.quantile(sizes, 0.9)),
    }  # fmt: skip


def _job_of_point(point: Point) -> Job:
    row, layout = point.row, point.layouts[0]
    setup = setup_of(Row(chip=row["system"], model=row["model_path"], precision=row["precision"]))
    setup = dataclasses.replace(setup, drafts=point.drafts)
    return Job(
        model=_MODELS[setup.config_name], system=row["system"], backend=row["backend"], isl=int(row["isl"]),
        osl=int(row["osl"]), users=float(row["concurrency"]) / layout.instances, tp=layout.tp, dp=layout.dp,
        moe_tp=layout.moe_tp, ep=layout.ep, is_split=point.is_split, drafts=setup.draft_tokens,
        accepted=setup.accepted, bits=row["precision"], chip=_told(setup.chip),
    )  # fmt: skip


def _job_of_row(row: Row) -> Job | None:
    """The run of a measurement whose prefill shares its chips, and that states its users and layout."""
    if row.phase != "service" or not number(row.tpot_ms) or not number(row.batch):
        return None
    try:
        setup = setup_of(row)
        users = number(row.batch) or 1.0
        service = service_of(row, setup, users, current_engines()[setup.engine])
    except Unpredictable:
        return None
    m, setup = service.decode, service.setup
    if service.is_split or setup.config_name not in _MODELS or setup.chip.family != "sm":
        return None
    return Job(
        model=_MODELS[setup.config_name], system=_SYSTEMS.get(setup.chip.key, setup.chip.key),
        backend={"trtllm": "trtllm", "vllm": "vllm"}.get(setup.engine, "sglang"),
        isl=int(service.load.input_tokens), osl=int(service.load.output_tokens),
        users=min(users, service.most_running), tp=m.attention_tp, dp=m.dp, moe_tp=m.moe_tp, ep=m.ep,
        is_split=False, drafts=setup.draft_tokens, accepted=setup.accepted,
        bits="fp4" if "fp4" in setup.precision.name else "fp8", chip=_told(setup.chip),
    )  # fmt: skip


def _told(chip: Chip) -> dict[str, float]:
    """A chip as genz-llm wants it: dense BF16 TFLOP/s, memory in GB, GB/s of memory and of links."""
    device = chip.device()
    return {
        "Flops": device.peak_flop_per_s["bf16"] / 1e12, "Memory_size": device.need("memory_bytes") / 2**30,
        "Memory_BW": device.need("memory_byte_per_s") / 1e9, "ICN": device.need("scaleup_byte_per_s") / 1e9,
    }  # fmt: skip


def record() -> None:
    """Run, and keep the errors of the three beside each other for the notebooks."""
    found = left_out(cases(DATA / "measurements.csv", DATA / "silicon_deepseek.csv"), current_engines())
    apart = {(r.family, r.row): r for results in found.values() for r in results}
    rows = list(_side_by_side(apart))
    about = "Errors of other packages beside ours, on the same rows. Written by python -m benchmarks.chips."
    short = [{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in short)
    write_whole(DATA / "peers.json", f'{{\n "about": {json.dumps(about)},\n "rows": [\n{lines}\n ]\n}}\n')
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    record()
