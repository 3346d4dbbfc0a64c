"""Rows that time one pass: decoding at a batch and a context, and prefill."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.chips.collectives import Seconds
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import largest_batch
from workbench.chips.validation.costs import step_curve, step_of
from workbench.chips.validation.rows import (
    Result,
    Row,
    Unpredictable,
    asks_for,
    banded,
    cache_hit,
    in_unit_of_time,
)
from workbench.chips.validation.setup import (
    UNEVEN,
    Setup,
    decode_mapping,
    decode_workload,
    nearest_divisor,
    setup_of,
)  # fmt: skip
from workbench.chips.validation.text import number, numbers
from workbench.chips.workload import Workload

# Sequences of one rank that engines admit where nothing else bounds them.
MOST_SEQUENCES = 1024
# Tokens of a prefill pass on one device where a row does not say.
PREFILL_TOKENS = 16384


def decode_results(row: Row, engine_for: dict[str, Engine]) -> Iterator[Result]:
    """Time per output token and throughput of a decoding row.

    Raises:
        Unpredictable: the row does not say enough, or what it measures is not simulated.
    """
    if "acceptance" in row.metric.lower():
        raise Unpredictable("acceptance is a property of the draft head and of the text: an input here")
    if "gain" in row.metric.lower():
        yield from _gain(row, engine_for)
        return
    if re.search(r"attention \+ \d+ ffn", row.parallelism.lower()):
        raise Unpredictable("attention and experts on different chips are not simulated")
    if "offload" in row.parallelism.lower():
        raise Unpredictable("experts or caches outside the chip's memory are not simulated")
    setup = setup_of(row)
    context = number(row.input_len) or number(row.output_len)
    if context is None and re.search(r"artificial|single|\b1\b", row.batch or ""):
        context = 1024.0
    if context is None:
        raise Unpredictable("the context length is not stated")
    devices = setup.devices or (setup.layout.ep or setup.layout.tp or setup.layout.dp)
    if devices is None:
        raise Unpredictable("neither the number of chips nor the layout is stated")
    mapping = decode_mapping(setup, devices, imbalance=1.0 if number(row.batch) == 1 else None)
    tail = number(row.output_len) or 0.0
    workload = decode_workload(setup, context + (tail / 2 if tail < context else 0.0))
    engine = engine_for[setup.engine]
    limit_s = _limit_s(row)
    batch = _batch(row, setup, mapping, devices)
    if batch is None and limit_s is not None:
        batch = _batch_within(setup, workload, mapping, engine, limit_s)
    if batch is None:
        room = setup.chip.device().need("memory_bytes") * engine.memory_share.value
        batch = largest_batch(
            setup.config, workload, mapping, room, setup.precision, engine_bytes=engine.reserve_bytes.value
        )
        batch = min(batch, MOST_SEQUENCES)
        if batch < 1:
            raise Unpredictable("the model does not fit the layout that the row states")
    step = _quicker(setup, workload.replace(batch=batch), mapping, engine)
    tpot = [s / setup.accepted for s in step]
    made = batch * mapping.dp / mapping.ranks * setup.per_chip
    measured_tpot = number(row.tpot_ms)
    if measured_tpot and limit_s is None:
        yield banded(row, "decode", "TPOT", [t * 1e3 for t in tpot], measured_tpot, "ms")
    value, asked = number(row.value), asks_for(row)
    if asked == "TPOT":
        if not measured_tpot:
            times = step if "step" in row.metric.lower() else tpot
            yield banded(row, "decode", row.metric, in_unit_of_time(row, times), value, row.unit)
        return
    if asked not in ("speed", "rate"):
        raise Unpredictable(f"{row.metric!r} in {row.unit!r} is not a property of a decoding step")
    rates = [made / t for t in reversed(tpot)]  # per chip; a slow step is a low rate
    if asked == "speed" or (row.unit == "tok/s" and batch <= 1):
        yield banded(row, "decode", row.metric, [1 / t for t in reversed(tpot)], value, row.unit)
        return
    scale = _chips_in_unit(row, setup)
    yield banded(row, "decode", row.metric, [r * scale for r in rates], value, row.unit)


def _quicker(setup: Setup, workload: Workload, mapping: Mapping, engine: Engine) -> Seconds:
    """The step as an engine would be tuned: half-batches in turn hide traffic, but fill tiles half as well.

    Where the row says which, that holds.
    """
    step = step_of(setup, workload, mapping, engine)
    if setup.layout.two_batches or mapping.overlap != "two batches":
        return step
    whole = step_of(setup, workload, mapping.replace(overlap="none"), engine)
    return min(step, whole, key=lambda s: float(s.expected))


def _batch(row: Row, setup: Setup, mapping: Mapping, devices: int) -> float | None:
    """Sequences of one attention group."""
    stated = number(row.batch) if not re.search(r"saturat", row.batch) else None
    if stated is None:
        return None
    if "batch is global" in row.note:
        # Spread over all devices of the row, of which the mapping may be a part.
        return max(stated / devices * mapping.ranks / mapping.dp, 1e-9) if mapping.dp > 1 else stated
    groups_per_chip = setup.per_chip if mapping.dp > 1 and not setup.by_device else 1
    return stated / groups_per_chip


def _limit_s(row: Row) -> float | None:
    """Seconds per token that a row promises its users, where it states the limit and not the batch."""
    match = re.search(r"(\d+)(?:-(\d+))?\s*tok/s per user", row.note)
    if match:
        ends = [float(g) for g in match.groups() if g]
        return len(ends) / sum(ends)
    return None


def _batch_within(
    setup: Setup, workload: Workload, mapping: Mapping, engine: Engine, limit_s: float
) -> float | None:
    """The largest batch whose users wait no longer than the limit for a token."""
    curve = step_curve(setup, workload, mapping, engine)
    batch, step = 1.0, 1.0
    while batch < MOST_SEQUENCES and curve(batch + step) / setup.accepted <= limit_s:
        batch += step
        step = max(1.0, batch / 16)
    return batch


def prefill_results(row: Row, engine_for: dict[str, Engine]) -> Iterator[Result]:
    """Throughput of a prefill row: tokens of a full pass over its time.

    Raises:
        Unpredictable: as decode_results.
    """
    if "gain" in row.metric.lower():
        yield from _gain(row, engine_for)
        return
    setup = setup_of(row)
    length = number(row.input_len)
    if length is None:
        raise Unpredictable("the length of the prompts is not stated")
    hit = cache_hit(row)
    devices = setup.devices or setup.layout.ep or 8
    per_device = _prefill_tokens(row, setup, devices)
    mapping = prefill_mapping(setup, devices)
    batch = max(per_device * mapping.ranks / mapping.dp / length, 1.0)
    workload = Workload(phase="prefill", context_tokens=length, batch=batch)
    step = step_of(setup, workload, mapping, engine_for[setup.engine])
    # A rate that counts cached tokens too is so much higher than that of the computed ones.
    counted = length / (1 - hit) if "hit" in f"{row.metric} {row.note}" else length
    per_chip = [batch * mapping.dp * counted / s / mapping.ranks * setup.per_chip for s in reversed(step)]
    scale = _chips_in_unit(row, setup)
    if asks_for(row) in ("TTFT", "TPOT", ""):
        yield banded(row, "prefill", row.metric, in_unit_of_time(row, step), number(row.value), row.unit)
        return
    yield banded(row, "prefill", row.metric, [r * scale for r in per_chip], number(row.value), row.unit)


def prefill_mapping(setup: Setup, devices: int) -> Mapping:
    """Data-parallel attention and experts over all devices of a prefill instance, two batches in turn.

    Experts are served one copy a node, as the high-throughput kernels do.
    """
    layout, experts = setup.layout, setup.config.n_routed_experts or 1
    uneven = 1.0 if setup.forced_balance else UNEVEN
    if (layout.tp or 1) > 1 and not (layout.dp or layout.ep):
        tp = layout.tp or 1
        return Mapping(attention_tp=tp, moe_tp=tp)
    ranks = nearest_divisor(experts, layout.ep or devices)
    return Mapping(
        dp=ranks, ep=ranks, expert_imbalance=uneven, expert_copies="per node",
        overlap="two batches" if ranks > 8 or layout.two_batches else "none",
    )  # fmt: skip


def _prefill_tokens(row: Row, setup: Setup, devices: int) -> float:
    """Tokens of a pass on one device: "16K tok/GPU", or "64 x 4K" over all devices."""
    match = re.search(r"(\d+)\s*x\s*(\d+)\s*([kK])?", row.batch)
    if match:
        return float(match[1]) * float(match[2]) * (1024 if match[3] else 1) / devices
    tokens = number(row.batch)
    if tokens is None:
        return float(PREFILL_TOKENS)
    if "npu" in row.batch.lower() or "chip" in row.batch.lower():
        return tokens / setup.per_chip
    return tokens


def _gain(row: Row, engine_for: dict[str, Engine]) -> Iterator[Result]:
    """What two half-batches in turn gain over one after the other, in per cent."""
    if row.phase == "decode":
        raise Unpredictable("decoding in two streams that share the cores of a die is not simulated")
    setup = setup_of(row)
    length = number(row.input_len) or 4096.0
    engine = engine_for[setup.engine]
    ranks = nearest_divisor(setup.config.n_routed_experts or 1, 32)
    base = Mapping(dp=ranks, ep=ranks, expert_copies="per node")
    workload = Workload(
        phase="prefill", context_tokens=length, batch=PREFILL_TOKENS / setup.per_chip / length
    )
    alone = step_of(setup, workload, base, engine).expected
    turns = step_of(setup, workload, base.replace(overlap="two batches"), engine).expected
    measured = numbers(row.value)
    # A range over sizes that are not stated: its middle.
    gain = 100 * (float(alone) / float(turns) - 1)
    yield banded(row, row.phase, row.metric, [gain] * 3, sum(measured) / len(measured), row.unit)


def _chips_in_unit(row: Row, setup: Setup) -> float:
    """How many chips a throughput's unit counts."""
    low = row.unit.lower()
    if "die" in low:
        return 1 / setup.per_chip
    if low in ("tok/s", "tokens/s"):
        return float(number(row.count) or 1) / (setup.per_chip if setup.by_device else 1)
    stated = re.search(r"\((\d+) (chips|gpu)", low)
    if stated and "node" not in low:
        return float(stated[1])
    if "/node" in low:
        return float(stated[1]) if stated else 8.0
    if "(node)" in low or "cluster" in low:
        return float(number(row.count) or 8)
    return 1.0
