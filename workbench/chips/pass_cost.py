"""What one pass costs before an engine runs it: kernels and messages, row by row and in sums.

Kernels come from the simulator of the chip's family, messages from the collectives. `step` adds what the
engine adds and lets expert traffic hide as the mapping says:

    step = Σ kernels · slowdown  ∥  expert traffic  +  other messages + layers · layer_s + step_s

A prefill replays no graph: the host starts every operation, and the chips wait where it is the slower.

The bounds of a step are meant to hold nine measured values in ten. What its constants' intervals move it by
adds up as independent errors do, and the engine's own `scatter` comes on top: what rows of systems that no
constant was fitted to were still off by. Rows (`rows`) keep the bounds of their kernels and messages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from workbench.chips.clusters import Cluster
from workbench.chips.collectives import NOTHING, Seconds
from workbench.chips.engines import Engine
from workbench.chips.expert_load import expert_load, loaded
from workbench.chips.kernels import Calibration, KernelTime, kernel_times
from workbench.chips.mapping import Exchange, Mapping, exchanges
from workbench.chips.operations import Operation, operations
from workbench.chips.overlap import ExpertStages, two_batches
from workbench.chips.precision import Precision
from workbench.chips.topology import Topology, topology_of
from workbench.chips.workload import Shard, Size, Workload
from workbench.config import ModelConfig

# Groups of experts that a fused kernel runs one behind the other. Assumed: the report says "waves" and no
# number; between 4 and 16 the time of a layer moves by a tenth.
WAVES = 8
# Chips that share a package with an Arm processor, and x86 hosts of the years of Blackwell and MI355X.
ARM_HOSTS = ("gb200", "gb300", "gh200", "dgx-spark", "rubin")
NEW_HOSTS = ("b200", "b300", "rtx-pro-6000", "rtx-5090", "mi355x", "ascend-950")
# Kernels of different code that share a step's time between them: errors of their calibration average out.
# Where no kernel of a family was ever measured, they may all err the same way.
DISTINCT_KERNELS, MEASURED_FAMILIES = 12, ("sm", "davinci")
_STAGES = {"experts gate_up": "up", "experts swiglu": "activation", "experts down": "down"}


@dataclass(frozen=True)
class TimeRow:
    """One part of a pass: `count` equal operations or messages, in all `time` seconds."""

    name: str
    kind: Literal["operation", "message", "engine"]
    layer_type: str
    count: Size
    time: Seconds
    limit: Any


@dataclass(frozen=True)
class PassCost:
    """Sums over a pass: kernels, expert traffic, other messages, and the stages of the expert layers.

    With two half-batches the sums are over both halves. `layers` counts the engine's gaps, `drafts` the
    passes of a draft head; `common` is the part of the kernels' intervals that all kernels err by together.
    """

    kernels: Seconds
    launch: Size
    traffic: Seconds
    other: Seconds
    stages: dict[str, Seconds]
    layers: float
    drafts: float
    passes: int
    operations: list[Operation]
    times: KernelTime
    messages: list[Exchange]
    chunked: bool
    launches: float
    is_prefill: bool
    host: str
    common: float

    def step(self, mapping: Mapping, engine: Engine) -> tuple[Seconds, Size]:
        """Seconds of the pass on an engine, and what overlap takes off the sum of all parts.

        The bounds hold what is measured nine times in ten (see `band`).
        """
        kernels = self._in_graph(engine)
        in_turn = kernels + self.traffic.expected
        if mapping.overlap == "two batches":
            busy = two_batches(kernels, self.traffic.expected)
        elif mapping.overlap == "waves" and self.traffic is not NOTHING:
            busy = in_turn - self._hidden_by_waves(engine.slowdown.value)
        else:
            busy = in_turn
        chips = busy + self.other.expected
        host = self.launches * getattr(engine, self.host).value if self.is_prefill else 0.0
        step = np.maximum(chips, host) + self.gaps(engine).expected
        shown = np.minimum(1.0, np.maximum(busy - kernels, 0.0) / np.maximum(self.traffic.expected, 1e-30))
        is_chips = chips >= host
        lower = self._swing("lower", engine, kernels, shown, is_chips) / step
        upper = self._swing("upper", engine, kernels, shown, is_chips) / step
        scatter = engine.scatter.value
        return (
            Seconds(
                step * np.exp(-np.hypot(np.log1p(lower), scatter)), step,
                step * np.exp(np.hypot(np.log1p(upper), scatter)),
            ),
            in_turn - busy,
        )  # fmt: skip

    def _swing(self, end: str, engine: Engine, kernels: Size, shown: Size, is_chips: Size) -> Size:
        """Seconds that the constants' ends move the pass by, as independent errors: root of squares.

        shown: share of the expert traffic that nothing hides; is_chips: the chips set the time, not the host.
        """

        def off(value: Any, middle: str = "expected") -> Size:
            return getattr(value, end) - getattr(value, middle)

        slow, gaps = engine.slowdown, self.gaps(engine)
        of_chips = (
            (self.common * off(self.kernels) * slow.value) ** 2
            + (off(slow, "value") * kernels / slow.value) ** 2
            + (off(engine.launch_share, "value") * self.launch * slow.value) ** 2
            + (shown * off(self.traffic)) ** 2
            + off(self.other) ** 2
        )
        if self.is_prefill:
            of_host = (self.launches * off(getattr(engine, self.host), "value")) ** 2
            of_chips = np.where(is_chips, of_chips, of_host)
        return np.sqrt(of_chips + off(gaps) ** 2)

    def _in_graph(self, engine: Engine) -> Size:
        """Kernels inside the engine: slower than alone, and launched for less."""
        hidden = (1 - engine.launch_share.value) * self.launch
        return (self.kernels.expected - hidden) * engine.slowdown.value

    def gaps(self, engine: Engine) -> Seconds:
        """What the engine adds: gaps in each layer of each pass, scheduling once, and each draft's own."""
        n = self.layers * self.passes
        layer, once, draft = engine.layer_s, engine.step_s, engine.draft_s
        return Seconds(
            layer.lower * n + once.lower + draft.lower * self.drafts,
            layer.value * n + once.value + draft.value * self.drafts,
            layer.upper * n + once.upper + draft.upper * self.drafts,
        )

    def _hidden_by_waves(self, slow: float) -> Size:
        parts = {name: time.expected for name, time in self.stages.items()}
        for name in ("up", "activation", "down"):
            parts[name] = parts[name] * slow
        stages = ExpertStages(**parts)
        return stages.in_turn - stages.in_waves(WAVES)

    def rows(self, engine: Engine) -> list[TimeRow]:
        """Every part of the pass by itself, before overlap."""
        times, slow = self.times, engine.slowdown
        found = []
        limits = np.asarray(times.limit)
        for i, o in enumerate(self.operations):
            one = (
                times.lower_s[i] * slow.lower,
                times.expected_s[i] * slow.value,
                times.upper_s[i] * slow.upper,
            )
            limit = limits[i]
            if self.chunked:
                one, limit = tuple(np.sum(t, axis=-1) for t in one), limit[..., 0]
            name = o.name if o.stage == "forward" else f"{o.name} ({o.stage})"
            count = o.count * self.passes
            found.append(TimeRow(name, "operation", o.layer_type, count, Seconds(*one).times(count), limit))
        for e in self.messages:
            count = e.count * self.passes
            time = _over_chunks(e.time, self.chunked).times(count)
            found.append(TimeRow(e.name, "message", e.layer_type, count, time, "link"))
        found.append(
            TimeRow("gaps, scheduling, sampling", "engine", "engine", 1, self.gaps(engine), "engine")
        )
        return found


def pass_cost(
    config: ModelConfig,
    cluster: Cluster,
    workload: Workload,
    mapping: Mapping,
    precision: Precision,
    *,
    stage: int = 0,
    busy_groups: float = 1.0,
    calibration: Calibration | None = None,
    topology: Topology | None = None,
) -> PassCost:
    """Kernels and messages of one pass of one pipeline stage.

    busy_groups: share of the attention groups that have work; the others wait, and bring the experts nothing.
    calibration, topology: constants of kernels and links other than the package's own.

    Shapes: sizes broadcast over the workload's arrays.
    """
    if workload.cache_format is None and precision.cache_format:
        workload = workload.replace(cache_format=precision.cache_format)
    passes = 1
    travels = mapping.has_expert_traffic(workload.phase)
    if mapping.overlap == "two batches" and travels and workload.phase != "train":
        # A training step has micro-batches to pair; a serving pass must cut its batch in two.
        passes, workload = 2, workload.replace(batch=workload.batch / 2)
    work = precision.apply(_operations(config, workload, mapping.shard(config, stage)))
    rows, experts = expert_load(config, workload, mapping, busy_groups)
    if rows != 1 or busy_groups != 1:
        work = [loaded(o, rows, experts) if o.name in (*_STAGES, "dispatch") else o for o in work]
    times = kernel_times(work, cluster.chip, calibration=calibration)
    chunked = workload.phase == "prefill" and workload.chunk_tokens is not None
    sent = exchanges(config, workload, mapping, topology or topology_of(cluster), stage=stage)
    stages = dict.fromkeys(("dispatch", "up", "activation", "down", "combine"), NOTHING)
    if mapping.overlap == "waves":
        for i, o in enumerate(work):
            if o.name in _STAGES:
                time = Seconds(times.lower_s[i], times.expected_s[i], times.upper_s[i]).times(o.count)
                stages[_STAGES[o.name]] = stages[_STAGES[o.name]].plus(_over_chunks(time, chunked))
    traffic, other = NOTHING, NOTHING
    for e in sent:
        time = _over_chunks(e.time, chunked).times(e.count * passes)
        if e.name in ("gather tokens", "scatter sums"):
            time = time.times(busy_groups)
        if e.is_expert_traffic:
            traffic = traffic.plus(time)
            if e.name in stages:
                stages[e.name] = stages[e.name].plus(time)
        else:
            other = other.plus(time)
    counts = np.array([float(o.count) for o in work])
    lower, expected, upper, launch = (
        _total(counts, t) * passes for t in (times.lower_s, times.expected_s, times.upper_s, times.launch_s)
    )
    launch = np.sum(launch, axis=-1) if chunked else launch
    chunk_count = times.expected_s.shape[-1] if chunked else 1
    drafts = _draft_layers(config, workload)
    layers = (config.num_hidden_layers / mapping.pp + drafts) * chunk_count
    return PassCost(
        _over_chunks(Seconds(lower, expected, upper), chunked), launch, traffic, other, stages, layers,
        drafts, passes, work, times, sent, chunked,
        launches=(float(counts.sum()) + sum(float(e.count) for e in sent)) * passes * chunk_count,
        is_prefill=workload.phase == "prefill", host=_host(cluster.chip.key),
        common=1 / math.sqrt(DISTINCT_KERNELS) if cluster.chip.family in MEASURED_FAMILIES else 1.0,
    )  # fmt: skip


def _operations(config: ModelConfig, workload: Workload, shard: Shard) -> Sequence[Operation]:
    """The operations of a pass; those of plain sizes are kept: another chip or engine asks for them again."""
    find = _kept_operations if is_plain(workload) else operations
    return find(config, workload, shard)


def is_plain(workload: Workload) -> bool:
    """Whether all sizes are numbers: such a workload can be looked up."""
    return not any(isinstance(value, np.ndarray) for value in vars(workload).values())


@lru_cache(maxsize=64)
def _kept_operations(config: ModelConfig, workload: Workload, shard: Shard) -> tuple[Operation, ...]:
    return tuple(operations(config, workload, shard))


def _host(chip: str) -> str:
    """The engine's constant that holds for the processor beside a chip."""
    if chip.startswith(ARM_HOSTS):
        return "arm_dispatch_s"
    return "dispatch_s" if chip.startswith(NEW_HOSTS) else "older_dispatch_s"


def _total(counts: np.ndarray, seconds: np.ndarray) -> Size:
    """Seconds of all operations. Shapes: (o,), (o, *s) -> s."""
    return (counts @ seconds.reshape(len(counts), -1)).reshape(seconds.shape[1:])[()]


def _over_chunks(time: Seconds, chunked: bool) -> Seconds:
    """The passes of a chunked prefill, one after the other."""
    if not chunked:
        return time
    return Seconds(*(np.sum(t, axis=-1) if np.ndim(t) else t for t in time))


def _draft_layers(config: ModelConfig, workload: Workload) -> float:
    """Layers of the MTP block that a decoding pass runs besides."""
    is_drafting = config.num_nextn_predict_layers and workload.phase == "decode"
    return float(workload.draft_tokens if is_drafting else 0)
