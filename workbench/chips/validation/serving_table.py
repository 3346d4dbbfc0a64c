"""The table of serving points with parallel sizes in columns: DeepSeek-R1 and V3 under load."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.chips.catalog import load_chip
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import largest_batch
from workbench.chips.steady import Load
from workbench.chips.validation.costs import step_band
from workbench.chips.validation.rows import UNREADABLE, Result, Unpredictable, read_table
from workbench.chips.validation.service import Service, band_of, decode_curve, state_of
from workbench.chips.validation.serving_layout import ServingLayout, layout_of_point, listed_in_full
from workbench.chips.validation.setup import (
    SKEW,
    Setup,
    config_of,
    decode_workload,
    nearest_divisor,
)  # fmt: skip
from workbench.chips.validation.sweeps import PLAIN, SAME_RUN, drafting, drafts_in, run_of
from workbench.chips.validation.text import Drafts, Layout, chip_of, model_of, precision_of
from workbench.chips.validation.wording import plain_point
from workbench.config import ModelConfig

NEEDED = ("system", "backend", "model_path", "precision", "mode", "isl", "osl", "concurrency", "tpot_ms")
_BACKENDS = {"trtllm": "trtllm", "vllm": "vllm"}
# The benchmark draws lengths between 80 and 100 per cent of the nominal ones (InferenceX, range ratio 0.8).
MEAN_LENGTH = 0.9


@dataclass(frozen=True)
class Point:
    """One row of the table by its number in the file; `reason` says why it is left out, if it is.

    layout: what its parallel sizes mean; None where they cannot be read, for which `reason` then speaks.
    drafts: those of its sweep.
    """

    number: int
    row: dict[str, str]
    layout: ServingLayout | None
    reason: str = ""
    drafts: Drafts = PLAIN

    @property
    def engine(self) -> str:
        return _BACKENDS.get(self.row["backend"], "sglang")

    @property
    def system(self) -> str:
        return f"{self.row['system']} {self.row['backend']}"


def serving_results(path: Path, engine_for: dict[str, Engine]) -> list[Result]:
    """Time per output token of every point; contradictory and ambiguous points are left out with a reason.

    Raises:
        ValueError: the file cannot be read, or lacks a column.
    """
    return [point_result(point, engine_for) for point in serving_points(read_table(path, NEEDED))]


def usable_points(rows: list[dict[str, str]]) -> list[Point]:
    """The points that nothing in the table speaks against."""
    return [point for point in serving_points(rows) if not point.reason]


def serving_points(rows: list[dict[str, str]]) -> list[Point]:
    """All points of a table with their layouts and drafts, or the reason why there are none."""
    rows = [plain_point(row) for row in rows]
    timed = [(row, ms) for row in rows if (ms := _measured_ms(row)) is not None]
    spread, drafted, full = _spreads(timed), drafting(timed), listed_in_full(rows)
    doubt = "the file holds the same configuration at another speed: drafts on and off, unsaid which"
    points = []
    for number, row in enumerate(rows, start=1):
        drafts = drafts_in(row, drafted)
        layout, reason = None, doubt if drafts is None and spread[run_of(row)] > SAME_RUN else ""
        try:
            layout = layout_of_point(row, _config(row), full)
        except Unpredictable as error:
            reason = reason or str(error)
        except UNREADABLE as error:
            reason = reason or f"not understood: {type(error).__name__} {error}"
        points.append(Point(number, row, layout, reason, drafts or PLAIN))
    return points


def _config(row: dict[str, str]) -> ModelConfig:
    name = model_of(row["model_path"])
    if name is None:
        raise Unpredictable(f"model {row['model_path']!r}: no published configuration in this package")
    return config_of(name)


def point_result(point: Point, engine_for: dict[str, Engine]) -> Result:
    """One point beside its prediction, or the reason why there is none."""
    measured = _measured_ms(point.row)
    try:
        if point.reason:
            raise Unpredictable(point.reason)
        if measured is None:
            raise Unpredictable("no time per output token is given")
        assert point.layout is not None
        predicted, low, high = _tpot_ms(point.row, point.layout, point.drafts, engine_for)
        if not 0 < predicted < math.inf:
            raise Unpredictable("a size in the row is not a number")
    except Unpredictable as reason:
        return _result(point, measured, str(reason))
    except UNREADABLE as error:
        return _result(point, measured, f"not understood: {type(error).__name__} {error}")
    return replace(
        _result(point, measured, ""), predicted=predicted, lower=predicted * low, upper=predicted * high
    )


def _result(point: Point, measured: float | None, reason: str) -> Result:
    return Result(
        str(point.number), "serving", point.system, "serving TPOT", "TPOT", measured, "ms", excluded=reason
    )


def _spreads(timed: Iterable[tuple[dict[str, str], float]]) -> dict[tuple[str, ...], float]:
    """Slowest over fastest run of each configuration."""
    times: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row, ms in timed:
        times[run_of(row)].append(ms)
    return defaultdict(lambda: 1.0, {run: max(t) / min(t) for run, t in times.items()})


def _tpot_ms(
    row: dict[str, str], layout: ServingLayout, drafts: Drafts, engine_for: dict[str, Engine]
) -> tuple[float, float, float]:
    """Milliseconds a token, and the bounds over that."""
    setup, is_split = _setup(row, drafts), row["mode"] != "agg"
    users = _number(row, "concurrency")
    if users is None:
        raise Unpredictable("the number of users is not stated")
    mapping, workers = _mapping(layout, setup), layout.instances
    if is_split:
        own = (_number(row, "decode_batch_size") or math.inf) * mapping.dp * workers
        users = min(users, own)
    load = Load(users, MEAN_LENGTH * float(row["isl"]), MEAN_LENGTH * float(row["osl"]), requests=10 * users)
    engine = engine_for[setup.engine]
    room = setup.chip.device().need("memory_bytes") * engine.memory_share.value
    fits = largest_batch(
        setup.config, decode_workload(setup, load.input_tokens + load.output_tokens), mapping, room,
        setup.precision, engine_bytes=engine.reserve_bytes.value,
    )  # fmt: skip
    if fits < 1:
        raise Unpredictable("the model does not fit the layout that the row states")
    most = fits * mapping.dp * workers
    if is_split:
        # The decoding pool alone: the batch is stated, so the prefill pool does not matter.
        step_s = decode_curve(setup, load.decode_context_tokens, mapping, workers, engine)
        running = min(users, most)
        workload = decode_workload(setup, load.decode_context_tokens)
        band = step_band(setup, workload, mapping, engine, max(running / workers / mapping.dp, 1.0))
        return step_s(running) * 1e3, *band
    service = Service(setup, load, mapping, 1, mapping, 1, mapping.ranks, False, most)
    state = state_of(service, engine)
    return state.tpot_s * 1e3, *band_of(service, state, engine)


def _setup(row: dict[str, str], drafts: Drafts) -> Setup:
    name, key = model_of(row["model_path"]), chip_of(row["system"])
    if name is None:
        raise Unpredictable(f"model {row['model_path']!r}: no published configuration in this package")
    if key is None:
        raise Unpredictable(f"chip {row['system']!r} is not in the catalog")
    recipe = precision_of(row["precision"], name)
    if isinstance(recipe, str):
        raise Unpredictable(recipe)
    engine = _BACKENDS.get(row["backend"], "sglang")
    return Setup(config_of(name), name, load_chip(key), None, False, recipe, Layout(), drafts, engine, False)


def _number(row: dict[str, str], name: str) -> float | None:
    text = row.get(name, "")
    return float(text) if text else None


def _measured_ms(row: dict[str, str]) -> float | None:
    """The measured time; None where the cell holds no positive number."""
    try:
        found = _number(row, "tpot_ms")
    except ValueError:
        return None
    return found if found is not None and 0 < found < math.inf else None


def _mapping(layout: ServingLayout, setup: Setup) -> Mapping:
    tp, dp, moe_tp, ep = layout.tp, layout.dp, layout.moe_tp, layout.ep
    if tp > 1 and setup.config.num_attention_heads % tp:
        raise Unpredictable(f"tensor parallel {tp} does not divide {setup.config.num_attention_heads} heads")
    ep = nearest_divisor(setup.config.n_routed_experts or 1, ep)
    if tp * dp % (ep * moe_tp):
        dp = ep * moe_tp // tp
    return Mapping(
        dp=dp,
        attention_tp=tp,
        ep=ep,
        moe_tp=moe_tp,
        expert_imbalance=1.1 if ep > 1 else 1.0,
        routing_skew=SKEW,
    )
