"""Rows that watch a serving engine under load, each in the unit that it is stated in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.chips.engines import Engine
from workbench.chips.validation.rows import (
    Result,
    Row,
    Unpredictable,
    asks_for,
    banded,
    cache_hit,
    in_unit_of_time,
)  # fmt: skip
from workbench.chips.validation.service import Service, band_of, service_of, state_of
from workbench.chips.validation.setup import Setup, setup_of
from workbench.chips.validation.text import number


def service_results(row: Row, engine_for: dict[str, Engine]) -> Iterator[Result]:
    """Time per output token and throughput of a serving row.

    Raises:
        Unpredictable: the row does not say enough, or measures something else.
    """
    _refuse(row)
    setup = setup_of(row)
    engine = engine_for[setup.engine]
    wanted = re.search(r"(\d+) tok/s/user", f"{row.parallelism} {row.metric}")
    if wanted and not number(row.batch):
        raise Unpredictable(
            "read off a frontier at a speed: the layout and the number of users are not stated"
        )
    users = number(row.batch)
    if users is None and asks_for(row) != "rate":
        raise Unpredictable("the number of users is not stated")
    # A throughput without a number of users is the most that the run reached.
    runs = [service_of(row, setup, n, engine) for n in _numbers(users, setup)]
    states = [state_of(run, engine) for run in runs]
    service, state = max(zip(runs, states, strict=True), key=lambda pair: pair[1].output_tokens_per_s)
    low, high = band_of(service, state, engine)
    slower = (low, 1.0, high)
    tpot = [state.tpot_s * x for x in slower]
    asked, value = asks_for(row), number(row.value)
    if number(row.tpot_ms) and asked != "TPOT":
        yield banded(row, "service TPOT", "TPOT", [s * 1e3 for s in tpot], number(row.tpot_ms), "ms")
    if asked == "TPOT":
        yield banded(row, "service TPOT", row.metric, in_unit_of_time(row, tpot), value, row.unit)
    elif asked == "TTFT":
        wait = in_unit_of_time(row, [state.ttft_s * x for x in slower])
        yield banded(row, "TTFT", row.metric, wait, value, row.unit)
    elif asked == "speed":
        yield banded(row, "service TPOT", row.metric, [1 / s for s in tpot], value, row.unit)
    elif asked in ("requests", "rate"):
        rate = state.output_tokens_per_s
        made = rate / service.load.output_tokens if asked == "requests" else _in_unit(row, service, rate)
        yield banded(row, "throughput", row.metric, [made / x for x in slower], value, row.unit)
    else:
        raise Unpredictable(f"{row.metric!r} in {row.unit!r} is not understood")


def _numbers(users: float | None, setup: Setup) -> list[float]:
    """The number of users, or a range of them for as many chips as the row has."""
    if users is not None:
        return [users]
    return [n * (setup.devices or 8) for n in (8.0, 16.0, 32.0, 64.0, 128.0)]


def _refuse(row: Row) -> None:
    low = f"{row.metric} {row.unit} {row.input_len}".lower()
    if "mw" in row.unit.lower():
        raise Unpredictable("throughput a megawatt depends on what a facility counts as power")
    if "agentic" in low:
        raise Unpredictable("an agent's trace: lengths and cache hits are not stated")
    if "bound" in row.metric or row.value.startswith("<"):
        raise Unpredictable("a promised bound, not a measurement")
    if "mlperf" in low:
        raise Unpredictable("MLPerf's data set: the lengths are not stated")
    if not number(row.input_len) or not number(row.output_len):
        raise Unpredictable("the lengths of prompts and answers are not stated")
    if "prefix cache" in row.note and not cache_hit(row):
        raise Unpredictable("the share of the prompts found in the cache is not stated")


def _in_unit(row: Row, service: Service, output_tokens_per_s: float) -> float:
    """Output tokens a second in the words of the row's unit and metric."""
    low, metric = row.unit.lower(), row.metric.lower()
    rate = output_tokens_per_s
    if "total" in metric or "in+out" in low:
        inn, out = number(row.input_len) or 0.0, number(row.output_len) or 1.0
        rate *= (inn + out) / out
    if re.search(r"\((node|cluster)\)|tok/s \(", low) or low == "tok/s":
        return rate
    if "/node" in low:
        return rate / service.devices * 8
    return rate / service.devices * (1 if "die" in low else service.setup.per_chip)
