"""Clusters as plain rows, which the figures of workbench.plots.clusters draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.chips import Workload, load_chip, predict
from workbench.chips.clusters import Cluster
from workbench.chips.collectives import Kind, collective_time, expert_time
from workbench.chips.engines import Engine, engine
from workbench.chips.mapping import Mapping as Layout
from workbench.chips.mapping import exchanges
from workbench.chips.memory_fit import MemoryRow
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.published import published
from workbench.chips.search import Point, explore, pareto
from workbench.chips.systems import System, load_system, uneven_mappings
from workbench.chips.topology import topology_of
from workbench.chips.validation.exact import is_exact
from workbench.chips.validation.judge import row_results
from workbench.chips.validation.kernel_table import NEEDED
from workbench.chips.validation.kernel_table import TABLE as KERNELS
from workbench.chips.validation.rows import read_measurements, read_table
from workbench.chips.validation.setup import cluster_of
from workbench.chips.waves import WAYS, layer_stages, makespan, schedule
from workbench.config import ModelConfig, load_config
from workbench.report import load_claims
from workbench.units import MICROSECOND_S, MILLISECOND_S, gib
from workbench.widgets.chip_rows import shown_model

Row = dict[str, Any]
COLLECTIVES: dict[str, Kind] = {
    "all_reduce": "all_reduce", "all_gather": "all_gather", "alltoall": "all_to_all",
}  # fmt: skip
# Tensors that a memory figure names; the others are one part.
NAMED_TENSORS = ("experts", "q_b_proj", "o_a_proj", "o_b_proj")


def layout_text(mapping: Layout) -> str:
    """A layout in the words of serving engines: "DP16 TP4 EP64, two batches"."""
    names = {"DP": mapping.dp, "TP": mapping.attention_tp, "CP": mapping.cp, "PP": mapping.pp}
    names |= {"EP": mapping.ep, "expert TP": mapping.moe_tp}
    words = " ".join(f"{name}{n}" for name, n in names.items() if n > 1) or "one device"
    return words if mapping.overlap == "none" else f"{words}, {mapping.overlap}"


def reach_rows(systems: Iterable[str], chips: int = 384) -> list[Row]:
    """Rows for `reach_figure`: tiers as software sees them, in devices."""
    return [
        {"system": one.name, "vendor": one.vendor, "tier": tier.name, "devices": tier.size}
        | {"byte_per_s": tier.link.bandwidth_byte_per_s}
        for one in map(load_system, systems)
        for tier in topology_of(one.cluster(chips)).tiers
    ]


def collective_rows(gpus: Mapping[str, str], world: int = 8) -> tuple[list[Row], list[Row]]:
    """Curves and measured points for `collective_figure`. gpus: name in the kernel table -> chip."""
    sizes = np.geomspace(4e3, 6e8, 60)
    curves, measured = [], []
    for key in gpus.values():
        place = topology_of(cluster_of(key, world))
        for kind in COLLECTIVES.values():
            time = collective_time(kind, sizes, world, place)
            curves.append(_panel(kind, key) | {"bytes": sizes} | time._asdict())
    for row in read_table(KERNELS, NEEDED):
        if row["gpu"] in gpus and row["op"] in COLLECTIVES and float(row["ep_or_world"]) == world:
            size, seconds = float(row["seq_or_bytes"]), float(row["latency_us"]) * MICROSECOND_S
            if sizes[0] <= size <= sizes[-1]:
                where = _panel(COLLECTIVES[row["op"]], gpus[row["gpu"]])
                measured.append(where | {"bytes": size, "seconds": seconds})
    return curves, measured


def _panel(kind: str, chip: str) -> Row:
    return {"panel": kind.replace("_", "-"), "name": load_chip(chip).name}


def expert_rows(systems: Iterable[str], ranks: Sequence[int], tokens: int, topk: int = 8) -> list[Row]:
    """Lines for `lines_figure`: dispatch and combine together against the ranks that share the experts."""
    rows = []
    for one in map(load_system, systems):
        place = topology_of(one.cluster(384))
        found = [expert_time(tokens, 7168, topk, n, place) for n in ranks]
        ends = {end: [getattr(t.dispatch.plus(t.combine), end) / MICROSECOND_S for t in found]
                for end in ("lower", "expected", "upper")}  # fmt: skip
        rows.append({"name": one.name, "x": list(ranks), "y": ends.pop("expected"), **ends})
    return rows


def message_rows(
    config: ModelConfig, cluster: Cluster, work: Workload, cases: Mapping[str, Layout]
) -> list[Row]:
    """Rows for `stacked_figure`: milliseconds of messages that a token waits for, by kind, all stages."""
    rows = []
    for case, mapping in cases.items():
        sent = exchanges(config, work, mapping, topology_of(cluster))
        for e in sent:
            seconds = float(np.sum(e.time.expected)) * float(np.sum(e.count)) * mapping.pp
            rows.append({"case": case, "part": e.name, "value": seconds / MILLISECOND_S})
        if not sent:
            rows.append({"case": case, "part": "dispatch", "value": 0.0})
    return rows


def memory_parts(case: str, rows: Iterable[MemoryRow]) -> list[Row]:
    """Memory rows of one device for `stacked_figure`, in GiB: the largest tensors by name."""
    return [
        {"case": case, "value": gib(float(np.max(row.size_bytes)))}
        | {"part": row.name if row.kind != "weights" or row.name in NAMED_TENSORS else "other weights"}
        for row in sorted(rows, key=lambda r: (r.kind != "weights", r.name not in NAMED_TENSORS))
    ]


def gain_rows(
    models: Iterable[str], systems: Iterable[str], tokens: Sequence[float], waves: int, ranks: int = 8
) -> tuple[list[Row], list[Row]]:
    """Curves and measured points for `gain_figure`: waves over one stage after the other."""
    curves, measured = [], []
    at = np.array(tokens, dtype=float)
    for model in models:
        for one in map(load_system, systems):
            chips = ranks // int(one.cluster(1).chip.logical_devices)
            stages = layer_stages(load_config(model), one.cluster(chips), at, ranks, precision=one.precision)
            gain = stages.in_turn / stages.in_waves(waves)
            curves.append({"panel": shown_model(model), "name": one.name, "tokens": at, "gain": gain})
        measured += measured_gains(model)
    return curves, measured


def measured_gains(model: str) -> list[Row]:
    """What the fused kernel's authors measured against separate kernels (claim I3), by tokens of a rank."""
    short = model.removeprefix("deepseek-v4-")
    values = {value.name: value.printed for value in load_claims()["I3"].values}
    return [
        {"panel": shown_model(model), "tokens": int(name.removeprefix(f"{short}_")), "gain": gain}
        for name, gain in values.items()
        if name.startswith(f"{short}_")
    ]


def schedule_rows(
    model: str, system: str, tokens: int, loads: Sequence[float], ranks: int = 8
) -> tuple[list[Row], dict[str, str], dict[str, float]]:
    """Spans and headings for `schedule_figure`, and the seconds of each way."""
    one = load_system(system)
    chips = max(ranks // int(one.cluster(1).chip.logical_devices), 1)
    stages = layer_stages(
        load_config(model), one.cluster(chips), float(tokens), ranks, precision=one.precision
    )
    spans: list[Row] = []
    heads: dict[str, str] = {}
    ends: dict[str, float] = {}
    for way in WAYS:
        mine = schedule(stages, loads, way)
        ends[way] = makespan(mine)
        times = f", {ends['in turn'] / ends[way]:.2f} times faster" if way != "in turn" else ""
        heads[way] = f"<b>{way}</b>: {ends[way] / MICROSECOND_S:,.0f} µs{times}"
        spans += [vars(span) | {"way": way} for span in mine]
    return spans, heads, ends


def front(
    config: ModelConfig, one: System, chips: int, work: Workload, *, imbalance: float = 1.0,
    limit_s: float | None = None,
) -> list[Point]:  # fmt: skip
    """The Pareto front of one system over all layouts and batches."""
    cluster = one.cluster(chips)
    points = explore(
        config, cluster, work, precision=one.precision, with_engine=one.engine,
        choices=uneven_mappings(config, cluster.devices, imbalance),
    )  # fmt: skip
    return pareto(points, limit_s)


def front_row(one: System, points: Sequence[Point]) -> Row:
    """A row of `front_figure`."""
    return {
        "system": one.name, "vendor": one.vendor,
        "interval_s": [p.interval_s for p in points], "rate": [p.tokens_per_s_per_chip for p in points],
        "text": [f"{layout_text(p.mapping)}, batch {p.batch}" for p in points],
    }  # fmt: skip


def published_rows(
    model: str, systems: Iterable[str], contexts: tuple[float, float] = (4096, 16384),
    phases: tuple[str, ...] = ("decode", "service"),
) -> list[Row]:  # fmt: skip
    """Measured points of `front_figure` for these systems' chips, at contexts in a range."""
    names = {load_system(key).cluster(1).chip.key: load_system(key) for key in systems}
    return [
        {"system": names[p.chip].name, "vendor": names[p.chip].vendor, "interval_s": p.interval_s}
        | {"rate": p.rate, "text": p.text}
        for p in published()
        if p.model == model
        and p.chip in names
        and p.phase in phases
        and contexts[0] <= p.context_tokens <= contexts[1]
    ]


def ratio_rows(phases: Iterable[str], stacks: Mapping[str, Engine], where: str = "") -> Iterator[Row]:
    """Rows for `ratio_figure`: measurements of some phases on chips whose name contains `where`.

    A row that states both is shown by its time per token: its throughput is the same fact again.
    """
    for row in read_measurements(KERNELS.with_name("measurements.csv")):
        if row.phase not in phases or where.lower() not in row.chip.lower() or is_exact(row):
            continue
        found = [
            r for r in row_results(row, dict(stacks)) if r.error is not None and r.predicted and r.measured
        ]
        times = [r for r in found if "TPOT" in r.metric]
        for r in times or found:
            assert r.predicted and r.measured
            size = f", batch {row.batch}" if row.batch else ""
            length = f", {row.input_len} tokens" if row.input_len else ""
            model = row.model.removeprefix("DeepSeek-")
            what = "time per token" if r in times else r.metric
            yield {
                "group": r.family, "label": f"{row.chip} · {model}{length}{size} · {what} · row {r.row}",
                "ratio": r.predicted / r.measured,
                "lower": r.lower / r.measured if r.lower else None,
                "upper": r.upper / r.measured if r.upper else None,
            }  # fmt: skip


def prefill_rows(
    config: ModelConfig, cluster: Cluster, prompt_tokens: int, cases: Mapping[str, Layout], *,
    precision: Precision = RELEASED, stack: str = "graph",
) -> list[Row]:  # fmt: skip
    """Seconds of one prompt by layout: {"layout", "ranks", "seconds", "lower", "upper", "messages"}."""
    rows = []
    for case, mapping in cases.items():
        work = Workload(phase="prefill", context_tokens=prompt_tokens, chunk_tokens=16384 * mapping.cp)
        made = predict(
            config, cluster, work, mapping, precision=precision, with_engine=engine(stack), check_memory=False
        )
        sent = sum(float(r.time.expected) for r in made.rows if r.kind == "message")
        rows.append(
            {"layout": case, "ranks": mapping.ranks, "seconds": float(made.step_s.expected), "messages": sent}
            | {"lower": float(made.step_s.lower), "upper": float(made.step_s.upper)}
        )
    return rows
