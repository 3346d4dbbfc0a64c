"""One layer of experts on the clock: which engine works on which wave, and who waits for whom.

A wave is a few experts. The link brings their tokens, the matrix unit multiplies twice with the vector unit
in between, the link takes the results back. `schedule` plays this event by event, so that waves need not be
equal: one popular expert is a long wave. `ExpertStages.in_waves` is its closed form for equal ones.

Report: section 3.1 and figure 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from workbench.chips.clusters import Cluster
from workbench.chips.collectives import Size, expert_time
from workbench.chips.kernels import kernel_times
from workbench.chips.mapping import Mapping
from workbench.chips.operations import operations
from workbench.chips.overlap import ExpertStages
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.topology import topology_of
from workbench.chips.workload import Workload
from workbench.config import ModelConfig

Way = Literal["in turn", "in pairs", "in waves"]
WAYS: tuple[Way, ...] = ("in turn", "in pairs", "in waves")
ENGINES = {
    "dispatch": "link", "up": "matrix unit", "activation": "vector unit", "down": "matrix unit",
    "combine": "link",
}  # fmt: skip
_KERNELS = ("experts gate_up", "experts swiglu", "experts down")
# What must be over, for every wave, before a stage may begin.
_BARRIERS: dict[Way, dict[str, str]] = {
    "in turn": {"up": "dispatch", "activation": "up", "down": "activation", "combine": "down"},
    "in pairs": {"activation": "up", "down": "activation"},
    "in waves": {},
}


@dataclass(frozen=True)
class Span:
    """One engine at work on one stage of one wave."""

    engine: str
    stage: str
    wave: int
    start_s: float
    end_s: float


def layer_stages(
    config: ModelConfig,
    cluster: Cluster,
    tokens: Size,
    ranks: int,
    *,
    precision: Precision = RELEASED,
    with_launch: bool = True,
) -> ExpertStages:
    """Seconds of the five stages of one expert layer with `tokens` a rank, each as a kernel of its own.

    Experts lie on `ranks` devices, evenly loaded. with_launch=False leaves the launches of the three kernels
    out, of which a fused kernel pays one; links keep their latency.

    Shapes: tokens (n,) or a number -> each stage alike.
    Raises:
        ValueError: a model without routed experts, or ranks that do not divide them.
    """
    if not config.n_routed_experts or not config.num_experts_per_tok:
        raise ValueError(
            f"layer_stages: {config.model_type} has no routed experts; waves hide their traffic; use a model "
            f"with n_routed_experts"
        )
    mapping = Mapping(dp=ranks, ep=ranks)
    workload = Workload(phase="prefill", context_tokens=tokens, batch=1)
    work = {o.name: o for o in precision.apply(operations(config, workload, mapping.shard(config)))}
    kernels = kernel_times([work[name] for name in _KERNELS], cluster.chip, is_fused=False)
    up, activation, down = kernels.expected_s - (0.0 if with_launch else 1.0) * kernels.launch_s
    traffic = expert_time(tokens, config.hidden_size, config.num_experts_per_tok, ranks, topology_of(cluster))
    return ExpertStages(traffic.dispatch.expected, up, activation, down, traffic.combine.expected)


def schedule(stages: ExpertStages, loads: Sequence[float], way: Way = "in waves") -> list[Span]:
    """Who works when: engines take the part that can begin first, of several that of the earliest wave.

    loads: the work of each wave, in any unit. "in turn" ends each stage before the next begins, "in pairs"
    overlaps dispatch with the first product and combine with the second, "in waves" knows no barrier.

    Raises:
        ValueError: an unknown way, or waves without work.
    """
    if way not in WAYS:
        raise ValueError(f"schedule: way {way!r} is unknown; choose one of {WAYS}")
    if not loads or min(loads) <= 0:
        raise ValueError(f"schedule: loads are {list(loads)}; every wave needs work above 0; drop the others")
    names = [field.name for field in fields(stages)]
    unit = {name: float(getattr(stages, name)) / sum(loads) for name in names}
    free = dict.fromkeys(ENGINES.values(), 0.0)
    left = dict.fromkeys(names, len(loads))
    over = dict.fromkeys(names, 0.0)  # when the last wave left the stage
    waiting = [(0.0, wave, 0) for wave in range(len(loads))]  # since when, wave, stage
    spans: list[Span] = []

    def start(part: tuple[float, int, int]) -> float:
        barrier = _BARRIERS[way].get(names[part[2]])
        return max(part[0], free[ENGINES[names[part[2]]]], over[barrier] if barrier else 0.0)

    while waiting:
        # A barrier opens when no wave is left before it.
        may = [p for p in waiting if not left.get(_BARRIERS[way].get(names[p[2]], ""), 0)]
        part = min(may, key=lambda p: (start(p), p[1]))
        waiting.remove(part)
        _, wave, index = part
        stage, begin = names[index], start(part)
        end = begin + unit[stage] * loads[wave]
        spans.append(Span(ENGINES[stage], stage, wave, begin, end))
        free[ENGINES[stage]] = end
        over[stage] = max(over[stage], end)
        left[stage] -= 1
        if index + 1 < len(names):
            waiting.append((end, wave, index + 1))
    return spans


def makespan(spans: Sequence[Span]) -> float:
    """When the last one ends."""
    return max(span.end_s for span in spans)
