"""Measurement rows that time one kernel: products, norms, attention, expert traffic, the fused layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from workbench.chips.catalog import Chip, load_chip
from workbench.chips.collectives import expert_time
from workbench.chips.kernel_rows import norm, product
from workbench.chips.kernels import KernelTime, kernel_times
from workbench.chips.mapping import Mapping
from workbench.chips.operations import Operation, operations
from workbench.chips.overlap import ExpertStages
from workbench.chips.pass_cost import WAVES
from workbench.chips.precision import precision
from workbench.chips.topology import topology_of
from workbench.chips.validation.kernel_table import NEEDED, TABLE
from workbench.chips.validation.rows import Result, Row, Unpredictable, read_table
from workbench.chips.validation.setup import cluster_of, config_of
from workbench.chips.validation.text import chip_of, model_of, number, numbers
from workbench.chips.workload import Shard, Workload
from workbench.units import GB, MICROSECOND_S, TFLOP


def kernel_results(row: Row) -> Iterator[Result]:
    """The kernel of a measurement row.

    Raises:
        Unpredictable: a kernel whose sizes the row does not state, or a chip that is not in the catalog.
    """
    key = chip_of(row.chip)
    if key is None:
        raise Unpredictable(f"chip {row.chip!r} is not in the catalog")
    chip, low = load_chip(key), f"{row.model} {row.parallelism} {row.metric}".lower()
    if re.search("all-to-all|dispatch, ep|combine, ep|ep dispatch|ep combine", low):
        yield from _expert_traffic(row, key)
    elif "fused dispatch" in low:
        yield _result(row, _fused_layer_s(row, key) / MICROSECOND_S)
    elif "gemm" in low:
        yield from _products(row, chip)
    elif "norm" in low and (sizes := re.search(r"(\d+)\s*x\s*(\d+)", f"{row.parallelism} {row.batch}")):
        times = kernel_times([norm(*map(int, sizes.groups()))], chip)
        ends = _in_us(times)
        yield _result(row, ends[1], ends)
    elif re.search(r"mla|mha|dsa|attention|sparse|dense", low):
        yield _attention(row, chip)
    else:
        raise Unpredictable(f"kernel {row.model} {row.parallelism!r} is not simulated")


def _formats(words: str) -> tuple[str, str]:
    low = words.lower()
    for word, name in (
        ("fp4", "fp4"),
        ("fp8", "fp8"),
        ("int8", "int8"),
        ("w8a8", "int8"),
    ):
        if word in low:
            return name, name
    return ("fp16", "fp16") if "fp16" in low else ("bf16", "bf16")


def _products(row: Row, chip: Chip) -> Iterator[Result]:
    weight, activation = _formats(row.precision)
    sizes = re.search(r"(\d+)\s*x\s*(\d+)\s*x\s*(\d+)", f"{row.parallelism} {row.batch}")
    if sizes:
        m, k, n = (float(s) for s in sizes.groups())
        shapes = [(m, n, k)]
    elif ">= 4096" in row.batch or "utilisation" in row.metric.lower():
        shapes = _large_shapes()
    else:
        raise Unpredictable("the sizes of the product are not stated")
    work = [product("gemm", 1.0, m, n, k, weight, activation) for m, n, k in shapes]
    work = [o.replace(group=str(i)) for i, o in enumerate(work)]
    times = kernel_times(work, chip, is_warm=True)
    flop = np.array([o.flop for o in work])
    peak = chip.device().arithmetic(weight, activation).flop_per_s
    ends = [float(np.median(flop / t)) for t in (times.upper_s, times.expected_s, times.lower_s)]
    low = f"{row.metric} {row.unit}".lower()
    if row.unit == "us":
        ends_us = _in_us(times)
        yield _result(row, ends_us[1], ends_us)
    elif "utilisation" in low or "mfu" in low or "fraction" in low:
        share = [e / peak * (100 if "%" in row.unit else 1) for e in ends]
        yield _result(row, share[1], share, middle=True)
    else:
        yield _result(row, ends[1] / TFLOP, [e / TFLOP for e in ends])


def _in_us(times: KernelTime) -> list[float]:
    """Lower, expected and upper time in microseconds; of several kernels the median."""
    return [float(np.median(t)) / MICROSECOND_S for t in (times.lower_s, times.expected_s, times.upper_s)]


@lru_cache(maxsize=1)
def _large_shapes() -> list[tuple[float, float, float]]:
    """Product sizes of the kernel table with every side at least 4096."""
    rows = [r for r in read_table(TABLE, NEEDED) if r["op"] == "gemm"]
    shapes = {(float(r["batch_or_tokens"]), float(r["n"]), float(r["k"])) for r in rows}
    return sorted(s for s in shapes if min(s) >= 4096)


def _attention(row: Row, chip: Chip) -> Result:
    """Attention kernels by what their names say: MLA with 128 heads; sparse: 2,048 keys for each query."""
    low = f"{row.model} {row.parallelism} {row.metric}".lower()
    config = config_of("deepseek-v3.2" if "sparse" in low else "deepseek-v3")
    is_decode = "prefill" not in low and "forward" not in low
    if is_decode:
        batch, context = number(row.batch) or 128.0, number(row.input_len) or 8192.0
        # Memory-bound rows are measured with one query a sequence and few heads; compute-bound with many.
        tp = 8 if "memory" in low else 1
        new = 2 if "compute" in low else 1
        workload = Workload(
            phase="decode", batch=batch, context_tokens=context, new_tokens=new, cache_format="bf16"
        )
    else:
        tp = 1
        workload = Workload(phase="prefill", context_tokens=8192, batch=1)
    core = next(o for o in operations(config, workload, Shard(attention_tp=tp)) if o.name == "core")
    times = kernel_times([core], chip)
    seconds = [float(t[0]) for t in (times.upper_s, times.expected_s, times.lower_s)]
    unit = row.unit.lower()
    if "gb/s" in unit:
        values = [core.cache_read_bytes / s / GB for s in seconds]
        if "%" in unit:
            values = [100 * v * GB / chip.device().need("memory_byte_per_s") for v in values]
    elif "tflop" in unit:
        values = [core.flop / s / TFLOP for s in seconds]
    elif "%" in unit or "fraction" in unit:
        peak = chip.device().peak_flop_per_s["bf16"]
        values = [core.flop / s / peak * (100 if "%" in unit else 1) for s in seconds]
    else:
        raise Unpredictable(f"an attention kernel in {row.unit!r} is not understood")
    return _result(row, values[1], values)


def _expert_traffic(row: Row, key: str) -> Iterator[Result]:
    match = re.search(r"EP(\d+)(?:x(\d+))?", row.parallelism, re.I)
    if not match:
        raise Unpredictable("the number of ranks is not stated")
    ranks = int(match[1]) * int(match[2] or 1)
    chip = load_chip(key)
    topology = topology_of(cluster_of(key, -(-ranks // int(chip.logical_devices))))
    is_latency = "latency" in row.metric.lower()
    tokens = number(row.batch) or 4096.0
    hidden = number((re.search(r"(\d+) hidden", row.note) or [""])[0]) or 7168
    topk = int((re.search(r"top-(\d+)", row.note) or [0, 8])[1])
    traffic = expert_time(
        tokens, int(hidden), topk, ranks, topology, copies="per expert" if is_latency else "per node",
        node_limit=None if is_latency else 4,
    )  # fmt: skip
    for name, way, measured in zip(("dispatch", "combine"), traffic, numbers(row.value), strict=False):
        if is_latency:
            values = [float(t) / MICROSECOND_S for t in way]
        else:
            _, members = topology.groups(ranks)[-1]
            bytes_out = tokens * hidden * (1.03 if name == "dispatch" else 2.0)
            inside = ranks // members
            if members > 1 and inside > 1:
                distinct = min(members * (1 - (1 - 1 / members) ** topk), 4)
                bytes_out *= distinct
            else:
                bytes_out *= topk * (ranks - 1) / ranks
            values = [float(bytes_out / t) / GB for t in reversed(way)]
        yield _result(row, values[1], values, metric=f"{row.metric}: {name}", measured=measured)


def _fused_layer_s(row: Row, key: str) -> float:
    """Dispatch, both expert products and combine in one kernel of waves."""
    name = model_of(row.model)
    tokens = number(row.batch)
    if name is None or tokens is None:
        raise Unpredictable("the model or the tokens of a rank are not stated")
    config, ranks = (
        config_of(name),
        int((re.search(r"EP(\d+)", f"{row.system} {row.parallelism}") or [0, 8])[1]),
    )
    chip = load_chip(key)
    recipe = precision("mxfp4 experts")
    mapping = Mapping(dp=ranks, ep=ranks)
    workload = Workload(phase="prefill", context_tokens=tokens, batch=1)
    work = recipe.apply(operations(config, workload, mapping.shard(config)))
    experts = [o for o in work if o.name.startswith("experts ")]
    picked: dict[str, Operation] = {o.name: o for o in experts}
    times = dict(zip(picked, kernel_times(list(picked.values()), chip).expected_s, strict=True))
    traffic = expert_time(
        tokens,
        config.hidden_size,
        config.num_experts_per_tok or 1,
        ranks,
        topology_of(cluster_of(key, ranks)),
    )
    stages = ExpertStages(
        float(traffic.dispatch.expected), float(times["experts gate_up"]), float(times["experts swiglu"]),
        float(times["experts down"]), float(traffic.combine.expected),
    )  # fmt: skip
    return float(stages.in_waves(WAVES))


def _result(
    row: Row, predicted: float, ends: list[float] | None = None, *, metric: str = "",
    measured: float | None = None, middle: bool = False,
) -> Result:  # fmt: skip
    values = numbers(row.value)
    if measured is None:
        measured = sum(values) / len(values) if middle and values else (values[0] if values else None)
    lower, upper = (min(ends), max(ends)) if ends else (None, None)
    return Result(
        row.id, "measurements", row.system or row.chip, "kernel", metric or row.metric, measured, row.unit,
        predicted, lower, upper,
    )  # fmt: skip
