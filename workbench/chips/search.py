"""The best way to lay a model on a cluster: every mapping and batch that fits, and the Pareto front of them.

Between two points of the front a reader's wait can only be bought with throughput: no other setting gives
more tokens a second and chip at the same time per token. Batches are one array, mappings a short loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.chips.clusters import Cluster
from workbench.chips.engines import Engine, engine
from workbench.chips.mapping import Mapping, Overlap
from workbench.chips.memory_fit import memory_rows, total_bytes
from workbench.chips.pass_cost import pass_cost
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.workload import Workload
from workbench.config import ModelConfig

BATCHES = tuple(int(n) for n in np.unique(np.round(np.geomspace(1, 1024, 41))))


@dataclass(frozen=True)
class Point:
    """One setting. interval_s: seconds a token (decoding) or a pass (prefill) takes its reader."""

    mapping: Mapping
    batch: int
    interval_s: float
    tokens_per_s_per_chip: float
    used_bytes: float


def mappings(
    config: ModelConfig,
    devices: int,
    *,
    overlaps: tuple[Overlap, ...] = ("none", "two batches"),
    most_tp: int = 8,
) -> Iterator[Mapping]:
    """Layouts of one replica that divide the model and use at most `devices` devices.

    Tensor parallel up to a node, data-parallel attention over the rest; experts over all ranks, or cut like
    the attention where there is no data parallelism.
    """
    heads, groups = config.num_attention_heads, config.o_groups or 0
    for tp in (n for n in (1, 2, 4, 8, 16) if n <= min(most_tp, devices)):
        if heads % tp or (groups and groups % tp):
            continue
        if not config.n_routed_experts:
            yield Mapping(attention_tp=tp)
            continue
        dp = 1
        while dp * tp <= devices:
            ranks = dp * tp
            if dp == 1 and config.moe_intermediate_size and config.moe_intermediate_size % tp == 0:
                yield Mapping(attention_tp=tp, moe_tp=tp)
            if ranks > 1 and config.n_routed_experts % ranks == 0:
                for overlap in overlaps if dp > 1 else ("none",):
                    yield Mapping(dp=dp, attention_tp=tp, ep=ranks, overlap=overlap)
            dp *= 2


def explore(
    config: ModelConfig,
    cluster: Cluster,
    workload: Workload,
    *,
    precision: Precision = RELEASED,
    with_engine: Engine | None = None,
    batches: tuple[int, ...] = BATCHES,
    choices: tuple[Mapping, ...] | None = None,
) -> list[Point]:
    """Every mapping and batch that fits into memory, with its speed; the workload's own batch is ignored.

    Raises:
        ValueError: nothing fits; the message names the largest tensor of the widest mapping.
    """
    stack = with_engine or engine("graph")
    room = cluster.chip.device().need("memory_bytes") * stack.memory_share.value
    many = workload.replace(batch=np.array(batches, dtype=np.float64))
    found: list[Point] = []
    options = choices or tuple(mappings(config, cluster.devices))
    tightest: tuple[float, str] | None = None
    for mapping in options:
        rows = memory_rows(config, many, mapping, precision, engine_bytes=stack.reserve_bytes.value)
        used = np.broadcast_to(np.asarray(total_bytes(rows)), many.batch.shape)
        fits = used <= room
        if not fits.any():
            largest = max(rows, key=lambda row: float(np.max(row.size_bytes)))
            over = float(used.min()) - room
            tightest = min(tightest or (over, largest.name), (over, largest.name))
            continue
        step, _ = pass_cost(config, cluster, many, mapping, precision).step(mapping, stack)
        found += _points(cluster, many, mapping, step.expected, used, fits)
    if not found:
        assert tightest is not None
        raise ValueError(
            f"explore: no mapping fits {cluster.key} with {cluster.devices} devices; the closest is "
            f"{tightest[0] / 2**30:.1f} GiB over, and its largest part is {tightest[1]}; use more chips "
            f"or fewer bits"
        )
    return found


def _points(
    cluster: Cluster,
    workload: Workload,
    mapping: Mapping,
    step_s: npt.NDArray[np.float64],
    used: npt.NDArray[np.float64],
    fits: npt.NDArray[np.bool_],
) -> Iterator[Point]:
    chips = mapping.ranks / int(cluster.chip.logical_devices)
    made = workload.tokens_per_step if workload.phase == "decode" else workload.tokens_computed
    for batch, seconds, size, ok in zip(workload.batch, step_s, used, fits, strict=True):
        if ok:
            interval = seconds / workload.tokens_per_step if workload.phase == "decode" else seconds
            rate = batch * mapping.dp * made / seconds / chips
            yield Point(mapping, int(batch), float(interval), float(rate), float(size))


def pareto(points: list[Point], limit_s: float | None = None) -> list[Point]:
    """The points that no other beats in both interval and throughput, fastest reader first.

    With a limit, only those that keep it.

    Raises:
        ValueError: no point keeps the limit; the message gives the shortest interval there is.
    """
    allowed = [p for p in points if limit_s is None or p.interval_s <= limit_s]
    if not allowed:
        best = min((p.interval_s for p in points), default=float("nan"))
        raise ValueError(
            f"pareto: limit_s is {limit_s}; the shortest interval of {len(points)} points is {best:.4g} s; "
            f"raise the limit, or search more mappings or more chips"
        )
    front: list[Point] = []
    best_rate = -1.0
    for point in sorted(allowed, key=lambda p: (p.interval_s, -p.tokens_per_s_per_chip)):
        if point.tokens_per_s_per_chip > best_rate:
            front.append(point)
            best_rate = point.tokens_per_s_per_chip
    return front


@dataclass(frozen=True)
class SplitPoint:
    """Prefill and decoding on chips of their own, in the ratio that keeps both busy.

    prefill_share: of all chips; tokens_per_s_per_chip counts input and output tokens over all chips.
    """

    prefill: Point
    decode: Point
    prefill_share: float
    output_tokens_per_s_per_chip: float
    tokens_per_s_per_chip: float


def best_split(
    prefill: list[Point], decode: list[Point], input_tokens: float, output_tokens: float, limit_s: float
) -> SplitPoint:
    """The best pair of pools for prompts and answers of these lengths, at most limit_s a token.

    The prefill pool works at its highest throughput. x of the chips prefill so that
    x · r_prefill / input = (1 − x) · r_decode / output.

    Raises:
        ValueError: no decode point keeps the limit.
    """
    first = max(prefill, key=lambda p: p.tokens_per_s_per_chip)
    second = pareto(decode, limit_s)[-1]
    prompts = first.tokens_per_s_per_chip / input_tokens
    answers = second.tokens_per_s_per_chip / output_tokens
    share = answers / (prompts + answers)
    requests = (1 - share) * answers
    return SplitPoint(
        first, second, share, requests * output_tokens, requests * (input_tokens + output_tokens)
    )
