"""How fast one serving instance runs: seconds of a decoding step and of a prefill pass, quick to ask.

A simulation asks a hundred thousand times, so a `TablePace` prices a grid of settings once with the chip
simulator and interpolates between them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from workbench.chips.clusters import Cluster
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.pass_cost import pass_cost
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.workload import Workload
from workbench.config import ModelConfig

BATCHES = tuple(float(n) for n in np.unique(np.round(np.geomspace(1, 1024, 22))))
CONTEXTS = tuple(float(n) for n in np.unique(np.round(np.geomspace(128, 2**20, 14))))
NEW_TOKENS = tuple(float(n) for n in np.unique(np.round(np.geomspace(1, 32768, 24))))


class Pace(Protocol):
    """Seconds of what an instance does."""

    def step_s(self, running: float, context_tokens: float) -> float:
        """One decoding step of `running` requests that see `context_tokens` on average."""

    def pass_s(self, new_tokens: float, longest_tokens: float, seen_tokens: float) -> float:
        """One prefill pass over `new_tokens`, at most `longest_tokens` of one prompt.

        seen_tokens: how many tokens a new token sees, on average.
        """


@dataclass(frozen=True)
class LinearPace:
    """Times as straight lines, for thought experiments and for tests with a known answer."""

    step_base_s: float = 0.01
    step_request_s: float = 0.0
    step_context_s: float = 0.0
    pass_base_s: float = 0.0
    pass_token_s: float = 0.0
    pass_seen_s: float = 0.0

    def step_s(self, running: float, context_tokens: float) -> float:
        return self.step_base_s + running * (self.step_request_s + self.step_context_s * context_tokens)

    def pass_s(self, new_tokens: float, longest_tokens: float, seen_tokens: float) -> float:
        return self.pass_base_s + new_tokens * (self.pass_token_s + self.pass_seen_s * seen_tokens)


class TablePace:
    """A chip's times, interpolated.

    An instance has `groups` attention groups that share experts. Requests spread evenly over them; a pass
    lasts as long as the group with the most tokens takes. With fewer requests than groups some groups idle
    and bring the experts nothing: between one busy group and all of them time is a straight line.
    """

    def __init__(self, groups: int, step: Table, one_step: Table, run: Table, one_run: Table) -> None:
        self.groups = groups
        self._step, self._one_step, self._run, self._one_run = step, one_step, run, one_run

    def step_s(self, running: float, context_tokens: float) -> float:
        each = running / self.groups
        if each >= 1:
            return self._step.at(each, context_tokens)
        return self._between(self._one_step, self._step, 1.0, context_tokens, running)

    def pass_s(self, new_tokens: float, longest_tokens: float, seen_tokens: float) -> float:
        each = max(new_tokens / self.groups, longest_tokens)
        return self._between(self._one_run, self._run, each, seen_tokens, new_tokens / each)

    def _between(self, one: Table, all_: Table, x: float, y: float, busy: float) -> float:
        if self.groups == 1:
            return all_.at(x, y)
        share = (max(busy, 1.0) - 1) / (self.groups - 1)
        return (1 - share) * one.at(x, y) + share * all_.at(x, y)


class Table:
    """A function of two sizes on a grid, bilinear between its points and beyond its edges."""

    def __init__(self, x: Sequence[float], y: Sequence[float], values: Any) -> None:
        self._x, self._y = list(x), list(y)
        self._values = np.asarray(values, dtype=np.float64).tolist()

    def at(self, x: float, y: float) -> float:
        xs, ys = self._x, self._y
        i = min(max(bisect_right(xs, x) - 1, 0), len(xs) - 2)
        j = min(max(bisect_right(ys, y) - 1, 0), len(ys) - 2)
        u = (x - xs[i]) / (xs[i + 1] - xs[i])
        v = min(max((y - ys[j]) / (ys[j + 1] - ys[j]), 0.0), 1.0)
        low, high = self._values[i], self._values[i + 1]
        return (1 - u) * ((1 - v) * low[j] + v * low[j + 1]) + u * ((1 - v) * high[j] + v * high[j + 1])


def table_pace(
    config: ModelConfig,
    cluster: Cluster,
    mapping: Mapping,
    engine: Engine,
    *,
    precision: Precision = RELEASED,
    draft_tokens: int = 0,
    accepted_length: float | None = None,
    end: str = "expected",
) -> TablePace:
    """The pace of one replica of a mapping, from the chip simulator.

    end: "lower", "expected" or "upper", the bound of the simulator to take.

    Raises:
        ValueError: the mapping needs more devices than the cluster has, an unknown end, or what
            `pass_cost` refuses.
    """
    if end not in ("lower", "expected", "upper"):
        raise ValueError(f"table_pace: end {end!r} is unknown; choose 'lower', 'expected' or 'upper'")
    if mapping.ranks > cluster.devices:
        raise ValueError(
            f"table_pace: the mapping has {mapping.ranks} ranks; {cluster.key} has {cluster.devices} "
            f"devices; use a smaller mapping or more chips"
        )
    batch, context = np.array(BATCHES)[:, None], np.array(CONTEXTS)[None, :]
    decode = Workload(
        phase="decode", batch=batch, context_tokens=context, draft_tokens=draft_tokens,
        accepted_length=accepted_length,
    )  # fmt: skip
    new, seen = np.array(NEW_TOKENS)[:, None], np.array(CONTEXTS)[None, :]
    # A token of an n-token prompt with `before` tokens in the cache sees before + n / 2 of them. Where the
    # pass has more new tokens than that allows, they belong to several prompts.
    length = np.minimum(new, 2 * seen)
    prefill = Workload(
        phase="prefill", batch=new / length, new_tokens=length, context_tokens=seen + length / 2
    )

    def seconds(workload: Workload, busy: float) -> Any:
        cost = pass_cost(config, cluster, workload, mapping, precision, busy_groups=busy)
        shape = np.broadcast_shapes(np.shape(workload.batch), np.shape(workload.context_tokens))
        return np.broadcast_to(getattr(cost.step(mapping, engine)[0], end), shape)

    def tables(workload: Workload, x: Sequence[float]) -> tuple[Table, Table]:
        whole = Table(x, CONTEXTS, seconds(workload, 1.0))
        alone = Table(x, CONTEXTS, seconds(workload, 1 / mapping.dp)) if mapping.dp > 1 else whole
        return whole, alone

    step, one_step = tables(decode, BATCHES)
    run, one_run = tables(prefill, NEW_TOKENS)
    return TablePace(mapping.dp, step, one_step, run, one_run)
