"""Rows that time training: tokens a second, GPU-hours, model FLOP utilisation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from workbench.accounting.flop import core_flop_per_entry
from workbench.accounting.training import training_flop_per_token
from workbench.chips.collectives import Seconds
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.training_step import Recipe, Schedule, TrainingStep, training_step
from workbench.chips.validation.rows import Result, Row, Unpredictable
from workbench.chips.validation.setup import Setup, setup_of
from workbench.chips.validation.text import Layout, chip_of, number, numbers
from workbench.units import HOUR_S, TFLOP

# NVIDIA's own recipe for V3 by chip, where a row names Megatron and no layout; experts balanced by force
# (Megatron-Bridge, performance summary; rows 308, 309 and 312 of measurements.csv).
_MEGATRON = {
    "gb300": Layout(tp=1, pp=2, vp=4, ep=32), "gb200": Layout(tp=1, pp=4, vp=4, ep=64),
    "b200": Layout(tp=1, pp=16, ep=8), "b300": Layout(tp=1, pp=16, ep=8),
}  # fmt: skip
# Load of the busiest expert over the mean while a bias of the router balances it (arXiv 2408.15664, table 2:
# 0.04 over the mean; recalled). A rank holds several experts, but a micro-batch scatters more: 1 to 1.2.
TRAINED_BALANCE = 1.04
# DeepSeek-V3's own run, for rows that speak of it without the layout (arXiv 2412.19437, section 3 and 4.2).
_V3_LAYOUT, _V3_SEQUENCES, _V3_TOKENS = Layout(pp=16, ep=64), 15360, 14.8e12


def training_results(row: Row, engine_for: dict[str, Engine]) -> Iterator[Result]:
    """What a training row states, from the time of one step.

    Raises:
        Unpredictable: the layout or the batch is not stated, or it is not pre-training.
    """
    if row.phase.upper().startswith("RL"):
        raise Unpredictable("a reinforcement-learning step: rollout, reward and training in unstated shares")
    if "fsdp" in row.parallelism.lower() or "swap" in row.parallelism.lower():
        raise Unpredictable("weights or optimiser states swapped to the host are not simulated")
    setup = setup_of(row)
    layout, sequences = setup.layout, number(row.batch)
    if setup.config_name == "deepseek-v3" and setup.chip.key == "h800":
        layout = layout if layout.pp else _V3_LAYOUT
        sequences = sequences or _V3_SEQUENCES
    if not layout.pp and "megatron" in row.words.lower() and setup.config_name == "deepseek-v3":
        layout, sequences = replace(_MEGATRON.get(setup.chip.key, layout), balanced=True), sequences or 4096.0
    if not layout.pp:
        raise Unpredictable("the layout is not stated")
    length = int(number(row.input_len) or 4096)
    devices = setup.devices or 256
    step = _step(row, setup, layout, devices, length, sequences, engine_for)
    rate = step.tokens_per_s_per_chip
    flop = training_flop_per_token(setup.config, length)
    peak = setup.chip.peak_flop_per_s["bf16"]
    low = f"{row.metric} {row.unit}".lower()
    if "gpu-hours" in low or "hours" in row.unit.lower():
        per_trillion = 1e12 / rate / HOUR_S
        if "per" in low and "trillion" in low:
            yield _result(row, row.metric, per_trillion / 1e3, number(row.value), step.step_s, is_time=True)
        else:
            # All of V3: pre-training, and 124K hours of extension and post-training as published.
            yield _result(
                row,
                row.metric,
                (per_trillion * _V3_TOKENS / 1e12 + 124e3) / 1e6,
                number(row.value),
                step.step_s,
                is_time=True,
            )
    elif "mfu" in low:
        values = numbers(row.value)
        # Causal: the half of the score matrix that is computed; non-causal counts all of it.
        causal = 100 * rate * flop / peak
        attention = (
            3
            * setup.config.num_hidden_layers
            * core_flop_per_entry(setup.config, absorbed=False)
            * length
            / 2
        )
        whole = 100 * rate * (flop + attention) / peak
        if len(values) == 2:
            yield _result(row, "MFU non-causal", whole, values[0], step.step_s)
            yield _result(row, "MFU causal", causal, values[1], step.step_s)
        else:
            yield _result(row, row.metric, causal, values[0] if values else None, step.step_s)
    elif "tflop" in low:
        yield _result(row, row.metric, rate * flop / TFLOP, number(row.value), step.step_s)
    else:
        yield _result(row, row.metric, rate, number(row.value), step.step_s)


def engine_of_training(row: Row) -> str:
    """The training stack of a row, by its words and chip."""
    key = chip_of(row.chip) or ""
    if key.startswith("ascend"):
        return "mindspeed"
    return "dualpipe" if _is_dual(row) else "megatron"


def _is_dual(row: Row) -> bool:
    return "dualpipe" in row.parallelism.lower() or chip_of(row.chip) == "h800"


def _step(
    row: Row, setup: Setup, layout: Layout, devices: int, length: int, sequences: float | None,
    engine_for: dict[str, Engine],
) -> TrainingStep:  # fmt: skip
    tp, pp, ep = layout.tp or 1, layout.pp or 1, layout.ep or 1
    groups = max(devices // (tp * pp), 1)
    dual = _is_dual(row)
    schedule: Schedule = "dualpipe" if dual else "interleaved" if (layout.vp or 1) > 1 else "1f1b"
    forced = setup.forced_balance or re.search(r"forced", row.note)
    mapping = Mapping(
        dp=groups, attention_tp=tp, pp=pp, ep=ep, expert_copies="per node",
        expert_imbalance=1.0 if forced else TRAINED_BALANCE,
        overlap="two batches" if dual else "none",
    )  # fmt: skip
    recipe = Recipe(
        sequence_tokens=length, sequences=int(sequences or groups * 8 * pp), schedule=schedule,
        chunks=layout.vp or 1,
    )  # fmt: skip
    cluster = setup.cluster(mapping.ranks)
    engine = engine_for[engine_of_training(row)]
    return training_step(setup.config, cluster, mapping, recipe, engine, precision=setup.precision)


def _result(
    row: Row, metric: str, predicted: float, measured: float | None, step: Seconds, *, is_time: bool = False
) -> Result:
    """A rate, or a time, with the bounds of the step it comes from."""
    low, high = step.lower / step.expected, step.upper / step.expected
    if not is_time:
        low, high = 1 / high, 1 / low
    return Result(
        row.id, "measurements", row.system, "training", metric, measured, row.unit, predicted,
        float(predicted * low), float(predicted * high),
    )  # fmt: skip
