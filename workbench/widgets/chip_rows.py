"""Kernels of V4 on chips as plain rows, which the figures of workbench.plots.chips draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.chips import Chip, Operation, Shard, Workload, kernel_times, load_chip, operations
from workbench.chips.kernels import load_calibration, timeline
from workbench.chips.kernels.machine import machine_of
from workbench.chips.kernels.schedule import resources, tiling_times
from workbench.config import CSA, ModelConfig
from workbench.plots.chips import LIMIT_TEXT, time_text

CHIPS = ("ascend-910c", "ascend-950dt", "mlu590", "h20", "h800", "b200", "mi355x")
SHOWN = {
    "ascend-910c": "Ascend 910C (die)", "ascend-950dt": "Ascend 950DT", "mlu590": "MLU590", "h20": "H20",
    "h800": "H800", "h200": "H200", "b200": "B200", "b300": "B300", "mi300x": "MI300X", "mi355x": "MI355X",
}  # fmt: skip
# What their makers call the presets.
MODELS = {
    "deepseek-v4-pro": "DeepSeek-V4-Pro", "deepseek-v4-flash": "DeepSeek-V4-Flash",
    "deepseek-v3.2": "DeepSeek-V3.2", "deepseek-v3": "DeepSeek-V3", "kimi-k2": "Kimi-K2",
    "qwen3-235b-a22b": "Qwen3-235B-A22B",
}  # fmt: skip
# The experts of a layer lie on so many devices; those of one device are what its kernels multiply.
EXPERT_RANKS = 32
TRACED = {
    "q_b_proj": "A V4 GEMM: q_b_proj",
    "core": "CSA: attention over the chosen entries",
    "index scores": "CSA: index scores",
    "attn_hc weights": "mHC: mixing weights",
    "attn_hc expand": "mHC: back into four streams",
    "experts gate_up": "Routed experts, gate and up",
}
Row = dict[str, Any]


def shown(chip: str) -> str:
    """A chip's name in figures."""
    return SHOWN.get(chip) or load_chip(chip).name


def shown_model(preset: str) -> str:
    """A model's name in figures."""
    return MODELS.get(preset, preset)


def layer(config: ModelConfig, workload: Workload) -> list[Operation]:
    """The operations of one CSA layer with its experts, each once, as one device of many runs them."""
    ranks = EXPERT_RANKS if config.n_routed_experts else 1
    return [
        op.replace(count=1)
        for op in operations(config, workload, Shard(ep=ranks))
        if op.layer_type in (CSA, "moe") and op.part == "trunk"
    ]


def tokens_workload(tokens: int, phase: str = "decode", context_tokens: int = 8192) -> Workload:
    """So many tokens on one device: sequences that decode, or a chunk of one prompt."""
    if phase == "decode":
        return Workload(phase="decode", batch=tokens, context_tokens=context_tokens)
    return Workload(
        phase="prefill", context_tokens=max(context_tokens, tokens), new_tokens=tokens, logits="last"
    )


def part_of(op: Operation) -> str:
    """Which part of a layer an operation belongs to, for a figure."""
    if op.kind == "attention":
        return "attention core"
    if op.group == "index":
        return "index and top-k"
    if "_hc" in op.group:
        return "stream mixing (mHC)"
    if op.name.startswith(("experts", "shared")):
        return "experts"
    return "linear maps" if op.kind == "gemm" else "norms, rotations, moves"


def pipeline_rows(operation: Operation, chips: Sequence[str], tiles: int = 3) -> tuple[list[Row], list[Row]]:
    """Spans and headings for `pipeline_figure`."""
    spans, heads = [], []
    for key in chips:
        line = timeline(operation, load_chip(key), tiles=tiles)
        spans += [vars(span) | {"chip": shown(key)} for span in line.spans]
        part = "the only tile" if line.tiles == 1 else f"{line.tiles_shown} of {line.tiles} tiles"
        text = (
            f"<b>{shown(key)}</b>: {time_text(line.expected_s)} in all, {part} of the busiest core; "
            f"limit: {LIMIT_TEXT[line.limit]}"
        )
        heads.append({"chip": shown(key), "text": text})
    return spans, heads


def resource_rows(operation: Operation, chips: Sequence[str]) -> list[Row]:
    """Rows for `resources_figure`."""
    rows = []
    for key in chips:
        alone = resources(operation, load_chip(key))
        seconds = {"roofline": alone.roof_s, "launch": alone.launch_s, "memory": alone.memory_s}
        rows += [
            {"chip": shown(key), "resource": name, "seconds": s, "expected_s": alone.expected_s}
            for name, s in (seconds | dict(alone.stages)).items()
        ]
    return rows


def breakdown_rows(work: Sequence[Operation], chips: Sequence[str | Chip], variant: str = "") -> list[Row]:
    """Rows for `breakdown_figure`: seconds of each part of some work, in order of first appearance."""
    rows = []
    for chip in chips:
        one = load_chip(chip) if isinstance(chip, str) else chip
        times = kernel_times(work, one)
        for part in dict.fromkeys(map(part_of, work)):
            at = [i for i, op in enumerate(work) if part_of(op) == part]
            count = np.array([float(work[i].count) for i in at])
            rows.append(
                {"chip": shown(one.key), "variant": variant, "part": part}
                | {
                    name: float((values[at] * count).sum())
                    for name, values in (
                        ("seconds", times.expected_s), ("lower_s", times.lower_s), ("upper_s", times.upper_s)
                    )
                }
            )  # fmt: skip
    return rows


def bounds_rows(cases: Mapping[str, Sequence[Operation]], chips: Sequence[str]) -> list[Row]:
    """Rows for `bounds_figure`: each case is operations that follow one another."""
    rows = []
    for key in chips:
        chip = load_chip(key)
        for case, work in cases.items():
            times = kernel_times(work, chip)
            roof = sum(resources(op, chip).roof_s for op in work)
            ends = {name: float(getattr(times, name).sum()) for name in ("lower_s", "expected_s", "upper_s")}
            row: Row = {"chip": shown(key), "vendor": chip.vendor, "case": case}
            rows.append(row | ends | {"roof_s": roof, "is_uncertain": chip.is_uncertain})
    return rows


def limit_rows(work: Sequence[Operation], chips: Sequence[str]) -> list[Row]:
    """Rows for `category_figure`: what limits each operation, its time, and how far above the roofline."""
    rows = []
    for key in chips:
        times = kernel_times(work, load_chip(key), is_fused=False)
        for op, expected, limit in zip(work, times.expected_s, times.limit, strict=True):
            factor = float(expected) / max(resources(op, load_chip(key)).roof_s, 1e-12)
            rows.append(
                {
                    "chip": shown(key), "operation": op.name, "category": LIMIT_TEXT[str(limit)],
                    "text": f"{time_text(float(expected))} · {factor:.2g}×",
                    "hover": f"{op.name} on {shown(key)}: {time_text(float(expected))}, {factor:.2g} times "
                             f"the roofline; limit: {LIMIT_TEXT[str(limit)]}",
                }
            )  # fmt: skip
    return rows


def roofline_rows(work: Sequence[Operation], chips: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Points and roofs for `roofline_figure`; work on vectors counts its own FLOPs."""
    points, roofs = [], []
    for key in chips:
        chip = load_chip(key)
        device, times = chip.device(), kernel_times(work, chip, is_fused=False)
        used = [device.arithmetic(op.weight or "bf16", op.activation) for op in work if op.is_product]
        peaks = {how.compute: how.flop_per_s for how in used}
        if "vector_fp32" in device.peak_flop_per_s:
            peaks["vector"] = device.peak_flop_per_s["vector_fp32"]
        by_peak: dict[float, str] = {}
        for name, peak in peaks.items():
            by_peak[peak] = f"{by_peak[peak]}, {name}" if peak in by_peak else name
        roofs += [
            {"chip": shown(key), "format": name, "flop_per_s": peak}
            | {"memory_byte_per_s": device.need("memory_byte_per_s")}
            for peak, name in by_peak.items()
        ]  # fmt: skip
        ends = zip(times.lower_s, times.expected_s, times.upper_s, strict=True)
        for op, (low, expected, high) in zip(work, ends, strict=True):
            flop = float(op.flop + op.vector_flop)
            if flop and op.moved_bytes:
                points.append(
                    {
                        "chip": shown(key), "name": op.name, "part": part_of(op),
                        "flop_per_byte": flop / float(op.moved_bytes), "flop_per_s": flop / float(expected),
                        "low": flop / float(high), "high": flop / float(low),
                    }
                )  # fmt: skip
    return points, roofs


def sawtooth_rows(
    n: int, k: int, fmt: str, tokens: Sequence[int], chips: Sequence[str]
) -> tuple[list[Row], list[Row]]:
    """Curves and envelopes for `sawtooth_figure`, for a product of tokens rows with an (n, k) weight."""
    m = np.asarray(tokens, dtype=float)
    size = {"fp8": 1.0, "bf16": 2.0}[fmt]
    op = Operation(
        name="product", kind="gemm", layer_type="", group="", m=m, n=n, k=k, weight=fmt, activation=fmt,
        flop=2 * m * n * k, weight_bytes=size * n * k, read_bytes=size * m * k, write_bytes=2 * m * n,
    )  # fmt: skip
    curves, best = [], []
    for key in chips:
        chip = load_chip(key)
        ideal = 2 * m * n * k / chip.device().arithmetic(fmt, fmt).flop_per_s
        for tiling, seconds in tiling_times(op, chip).items():
            text = f"{tiling[0]} × {tiling[1]}, k in {tiling[2]}"
            curves.append({"chip": shown(key), "tiling": text, "m": m, "share": ideal / seconds})
        times = kernel_times([op], chip)
        best.append(
            {
                "chip": shown(key), "m": m, "share": ideal / times.expected_s[0],
                "low": ideal / times.upper_s[0], "high": np.minimum(ideal / times.lower_s[0], 1.0),
            }
        )  # fmt: skip
    return curves, best


def level_rows(chips: Sequence[str]) -> list[Row]:
    """Rows for `levels_figure`. On-chip sizes are published for one core: here times the cores."""
    rows = []
    for key in chips:
        device = load_chip(key).device()
        cores = machine_of(device, load_calibration().generations).cores
        for level, sizes in _LEVELS.items():
            factor = cores if level in ("beside the unit", "in the core") else 1
            bands = [(factor * scale, getattr(device, name), _band(device, name)) for name, scale in sizes]
            known = [(scale, value, band) for scale, value, band in bands if band is not None]
            if known:
                low, high = (sum(scale * band[end] for scale, _, band in known) for end in (0, 1))
                is_published = all(value is not None for _, value, _ in known)
                size = sum(scale * value for scale, value, _ in known) if is_published else None
                rows.append({"chip": shown(key), "level": level, "bytes": size, "low": low, "high": high})
    return rows


_LEVELS: dict[str, list[tuple[str, float]]] = {
    "beside the unit": [
        ("l0a_bytes", 1), ("l0b_bytes", 1), ("l0c_bytes", 1), ("register_bytes", 1),
        ("tensor_memory_bytes", 1),
    ],
    "in the core": [
        ("l1_bytes", 1), ("ub_bytes", 2), ("shared_memory_bytes", 1), ("lds_bytes", 1), ("nram_bytes", 1),
        ("wram_bytes", 1),
    ],
    "shared by cores": [("l2_bytes", 1), ("last_level_bytes", 1)],
    "main memory": [("memory_bytes", 1)],
}  # fmt: skip


def _band(device: Chip, name: str) -> tuple[float, float] | None:
    value, q = getattr(device, name), device.quantities.get(name)
    if q and q.lower and q.upper:
        return q.lower, q.upper
    return None if value is None else (value, value)


def fallback_rows(products: Mapping[str, tuple[str, str]], chips: Sequence[str]) -> Iterator[Row]:
    """Rows for `category_figure`: what each product (weight, activation) runs in on each chip."""
    for key in chips:
        device = load_chip(key).device()
        for name, (weight, activation) in products.items():
            how = device.arithmetic(weight, activation)
            kind = "as released" if how.is_native else "requantised" if "quantised" in how.note else "widened"
            yield {
                "chip": shown(key), "product": name, "category": kind,
                "text": f"{how.compute} · {how.flop_per_s / 1e12:,.0f} T", "hover": how.note or "as released",
            }  # fmt: skip
