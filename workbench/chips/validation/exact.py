"""Rows that are arithmetic: cache sizes, FLOPs a token, communication bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.accounting import daily_cost, expert_traffic_s, kv_cache_bytes, margin
from workbench.accounting.flop import flop_per_token
from workbench.accounting.training import training_flop_per_token
from workbench.chips.validation.rows import Result, Row, Unpredictable
from workbench.chips.validation.setup import config_of
from workbench.chips.validation.text import model_of, number, numbers
from workbench.units import GB, GFLOP, GIB, KB, KIB, MB, MIB, MILLISECOND_S

_SIZES = {"gib": GIB, "gb": GB, "mib": MIB, "mb": MB, "kib": KIB, "kb": KB, "bytes": 1.0, "b": 1.0}
# Constants of the communication bound: arXiv 2505.09343, section 2.3.2, and F10 of the claim ledger.
_BOUND = dict(dispatch_bytes=1.0, combine_bytes=2.0, experts=9, hidden_size=7000.0)
_IB_BYTE_PER_S, _NVL72_BYTE_PER_S = 50 * GB, 900 * GB


def is_exact(row: Row) -> bool:
    """Whether a row states a count rather than a measurement."""
    low = f"{row.phase} {row.metric}".lower()
    return bool(
        re.search(r"kv cache|cache per|flop.? ?(per|/) ?token|tpot lower bound|cost.profit|margin", low)
    ) or (row.phase == "memory")


def exact_results(row: Row) -> Iterator[Result]:
    """The counted value of an exact row.

    Raises:
        Unpredictable: a count that accounting does not have.
    """
    low = f"{row.phase} {row.metric} {row.unit}".lower()
    values = numbers(row.value)
    measured = values[0] if values else None
    if "margin" in low:
        inputs = numbers(row.note)
        if len(inputs) < 2:
            raise Unpredictable("revenue and cost are not stated")
        revenue, cost = max(inputs), sorted(inputs)[-2]
        yield _exact(row, 100 * margin(revenue, cost), measured)
        return
    if "usd/day" in low or "daily cost" in low:
        yield _exact(row, daily_cost(226.75, 8, 2.0), measured)
        return
    name = model_of(row.model)
    if name is None:
        raise Unpredictable(f"model {row.model!r}: no published configuration in this package")
    config = config_of(name)
    if "lower bound" in low:
        band = _NVL72_BYTE_PER_S if re.search(r"nvl|gb200", row.words.lower()) else _IB_BYTE_PER_S
        batch = int(number(row.batch) or 32)
        seconds = expert_traffic_s(config, tokens=batch, bandwidth_byte_per_s=band, **_BOUND)  # type: ignore[arg-type]
        yield _exact(row, seconds / MILLISECOND_S, measured)
        return
    if "flop" in low:
        context = int(number(row.input_len) or 4096)
        is_training = "train" in low
        flop = (
            training_flop_per_token(config, context)
            if is_training
            else float(flop_per_token(config, context))
        )
        yield _exact(row, flop / GFLOP, measured)
        return
    unit = row.unit.lower().split("/")[0].strip()
    if unit not in _SIZES:
        raise Unpredictable(f"a size in {row.unit!r} is not understood")
    tokens = _tokens(row)
    form = "bf16" if re.search(r"bf16", f"{row.precision} {row.metric} {row.note}".lower()) else None
    if name in ("deepseek-v3", "llama-3.1-405b", "qwen2.5-72b"):
        form = form or "bf16"
    if tokens == 1:
        # One token of a cache that grows by every token; windows are not counted.
        size = float(kv_cache_bytes(config, 1, cache_format=form, state="none"))
    else:
        size = float(kv_cache_bytes(config, int(tokens), cache_format=form))
    yield _exact(row, size / _SIZES[unit], measured)


def _tokens(row: Row) -> float:
    if re.search(r"per[ -]token|a token", row.metric.lower()) or "/token" in row.unit.lower():
        return 1.0
    stated = number(row.input_len)
    if stated is None:
        match = re.search(r"(\d+)\s*([kKmM])[- ]token", row.metric)
        stated = number(match[1] + match[2]) if match else None
    if stated is None:
        raise Unpredictable("the length of the sequence is not stated")
    return stated


def _exact(row: Row, predicted: float, measured: float | None) -> Result:
    return Result(
        row.id,
        "measurements",
        row.system,
        "exact",
        row.metric,
        measured,
        row.unit,
        predicted,
        predicted,
        predicted,
    )
