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
from workbench.chips.validation.serving_recipes import Recipe, recipes_at, run_key
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
TWO_SPEEDS = "the file holds the same configuration at another speed: drafts on and off, unsaid which"
# The benchmark draws lengths between 80 and 100 per cent of the nominal ones (InferenceX, range ratio 0.8).
MEAN_LENGTH = 0.9


@dataclass(frozen=True)
class Point:
    """One row of the table by its number in the file; `reason` says why it is left out, if it is.

    layouts: what its parallel sizes may mean; none where they cannot be read, for which `reason` then speaks.
    drafts: those of its sweep, or of the published run that it is (`is_published`).
    """

    number: int
    row: dict[str, str]
    layouts: tuple[ServingLayout, ...]
    reason: str = ""
    drafts: Drafts = PLAIN
    is_published: bool = False

    @property
    def is_split(self) -> bool:
        return self.is_published or self.row["mode"] != "agg"

    @property
    def engine(self) -> str:
        return _BACKENDS.get(self.row["backend"], "sglang")

    @property
    def system(self) -> str:
        return f"{self.row['system']} {self.row['backend']}"


def serving_results(path: Path | str, engine_for: dict[str, Engine]) -> list[Result]:
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
    times, drafted, full = _times(timed), drafting(timed), listed_in_full(rows)
    twice = {(run_key(row), row["tpot_ms"]) for row in rows if row.get("decode_num_workers")}
    points = []
    for number, row in enumerate(rows, start=1):
        layouts: tuple[ServingLayout, ...] = ()
        recipes: list[Recipe] = []
        reason, drafts = "", drafts_in(row, drafted)
        alike = times[run_of(row)]
        try:
            if (run_key(row), row["tpot_ms"]) not in twice:
                recipes = recipes_at(row, _measured_ms(row), times[run_key(row)])
            if recipes:
                layouts, drafts = tuple(r.decode() for r in recipes), recipes[0].speculation()
            elif drafts is None and alike and max(alike) > SAME_RUN * min(alike):
                raise Unpredictable(TWO_SPEEDS)
            else:
                layouts = (layout_of_point(row, _config(row), full),)
        except Unpredictable as error:
            reason = str(error)
        except UNREADABLE as error:
            reason = f"not understood: {type(error).__name__} {error}"
        points.append(Point(number, row, layouts, reason, drafts or PLAIN, bool(recipes)))
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
        found = [_tpot_ms(point, layout, engine_for) for layout in point.layouts]
        # Of several runs that the point may be, the middle; the bounds hold them all.
        predicted = math.prod(ms for ms, _, _ in found) ** (1 / len(found))
        if not 0 < predicted < math.inf:
            raise Unpredictable("a size in the row is not a number")
    except Unpredictable as reason:
        return _result(point, measured, str(reason))
    except UNREADABLE as error:
        return _result(point, measured, f"not understood: {type(error).__name__} {error}")
    lower, upper = min(ms * low for ms, low, _ in found), max(ms * high for ms, _, high in found)
    return replace(_result(point, measured, ""), predicted=predicted, lower=lower, upper=upper)


def _result(point: Point, measured: float | None, reason: str) -> Result:
    return Result(
        str(point.number), "serving", point.system, "serving TPOT", "TPOT", measured, "ms", excluded=reason
    )


def _times(timed: Iterable[tuple[dict[str, str], float]]) -> dict[tuple[str, ...], list[float]]:
    """Times of all points of each configuration and of each run."""
    times: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row, ms in timed:
        for key in (run_of(row), run_key(row)):
            times[key].append(ms)
    return times


def _tpot_ms(
    point: Point, layout: ServingLayout, engine_for: dict[str, Engine]
) -> tuple[float, float, float]:
    """Milliseconds a token, and the bounds over that."""
    row, is_split = point.row, point.is_split
    setup = _setup(row, point.drafts)
    users = _number(row, "concurrency")
    if users is None:
        raise Unpredictable("the number of users is not stated")
    mapping, workers = _mapping(layout, setup), layout.instances
    if is_split:
        own = (_number(row, "decode_batch_size") or math.inf) * mapping.dp * workers
        users = min(users, own)
    load = Load(users, MEAN_LENGTH * float(row["isl"]), MEAN_LENGTH * float(row["osl"]), requests=10 * users)
    engine = engine_for[setup.engine]
    # The run was run: where the engine's usual share of memory is too small, it had more of its interval.
    fits = _fits(setup, load, mapping, engine, "value") or _fits(setup, load, mapping, engine, "upper")
    if fits < 1:
        raise Unpredictable("the model does not fit the layout that the row states")
    most = fits * mapping.dp * workers
    if is_split:
        # The decoding pool alone: the batch is stated, so the prefill pool does not matter.
        step_s = decode_curve(setup, load.decode_context_tokens, mapping, workers, engine)
        running = min(users, most)
        workload = decode_workload(setup, load.decode_context_tokens)
        band = step_band(setup, workload, mapping, engine, max(running / workers / mapping.dp, 1.0))
        return step_s(running) / setup.accepted * 1e3, *band
    service = Service(setup, load, mapping, 1, mapping, 1, mapping.ranks, False, most)
    state = state_of(service, engine)
    return state.tpot_s * 1e3, *band_of(service, state, engine)


def _fits(setup: Setup, load: Load, mapping: Mapping, engine: Engine, end: str) -> int:
    """Sequences of one attention group that memory holds; end: of the interval of the engine's share."""
    room = setup.chip.device().need("memory_bytes") * getattr(engine.memory_share, end)
    reserve = engine.reserve_bytes.lower if end == "upper" else engine.reserve_bytes.value
    workload = decode_workload(setup, load.input_tokens + load.output_tokens)
    return largest_batch(setup.config, workload, mapping, room, setup.precision, engine_bytes=reserve)


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
