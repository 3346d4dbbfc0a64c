"""A pipeline of stages, micro-batch by micro-batch: who computes what when, and who waits.

A schedule is an order of work for each rank (`orders`). It is played here: a forward pass needs the stage
before it, a backward pass the stage behind it. What a rank does not fill with work is the bubble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.chips.runs.orders import Kind, Schedule, Work, order_of


@dataclass(frozen=True)
class Slot:
    """What a rank does from start to end: one piece of work, or two that run together."""

    rank: int
    start_s: float
    end_s: float
    work: tuple[Work, ...]


@dataclass(frozen=True)
class PartTime:
    """Seconds of one part of the model: forward, all of backward, and the weights' half of backward.

    together: time of a forward and a backward pass run side by side, over the sum of both.
    """

    forward_s: float
    backward_s: float
    weight_s: float = 0.0
    together: float = 1.0

    def __post_init__(self) -> None:
        if min(self.forward_s, self.backward_s) < 0 or not 0 <= self.weight_s <= self.backward_s:
            raise ValueError(
                f"PartTime: forward {self.forward_s}, backward {self.backward_s}, weight {self.weight_s} s; "
                f"none may be negative, and weight is part of backward; change them"
            )

    @property
    def pair_s(self) -> float:
        """A forward and a backward pass side by side."""
        return self.together * (self.forward_s + self.backward_s)

    def cut(self, chunks: int) -> PartTime:
        """One of `chunks` equal pieces of this part."""
        return PartTime(
            self.forward_s / chunks, self.backward_s / chunks, self.weight_s / chunks, self.together
        )

    def mean(self, other: PartTime) -> PartTime:
        """A part that takes as long as this one and another do on average."""
        forward, backward, weight, pair = (
            (getattr(self, name) + getattr(other, name)) / 2
            for name in ("forward_s", "backward_s", "weight_s", "pair_s")
        )
        return PartTime(forward, backward, weight, pair / (forward + backward))

    def seconds(self, work: Work) -> float:
        return {
            "forward": self.forward_s, "backward": self.backward_s, "weight": self.weight_s,
            "input": self.backward_s - self.weight_s,
        }[work.kind]  # fmt: skip


@dataclass(frozen=True)
class Timeline:
    """A played schedule. in_flight: micro-batches whose activations the fullest moment of each rank holds,
    in units of all that one micro-batch leaves on a rank."""

    slots: tuple[Slot, ...]
    seconds: float
    busy_s: tuple[float, ...]
    in_flight: tuple[float, ...]

    @property
    def bubble_s(self) -> tuple[float, ...]:
        """Idle seconds of each rank."""
        return tuple(self.seconds - busy for busy in self.busy_s)

    @property
    def bubble_share(self) -> float:
        """Idle over all time, mean of the ranks."""
        return sum(self.bubble_s) / len(self.busy_s) / self.seconds


def play(
    schedule: Schedule,
    stages: int,
    micro_batches: int,
    times: Sequence[PartTime],
    *,
    chunks: int = 1,
    hop_s: float = 0.0,
) -> Timeline:
    """Time a schedule. times: of each part of the model in its order, stages × chunks, or one for all.

    hop_s: from the end of a pass to where its neighbour can use the result.

    Raises:
        ValueError: a schedule that does not exist or does not fit the numbers.
    """
    orders = order_of(schedule, stages, micro_batches, chunks)
    parts = stages * chunks
    if len(times) not in (1, parts):
        raise ValueError(
            f"play: got times of {len(times)} parts; {stages} stages of {chunks} chunks have {parts}; give "
            f"one each, or one for all"
        )
    every = list(times) * parts if len(times) == 1 else list(times)
    done: dict[tuple[str, int, int, int], tuple[float, int]] = {}  # what -> when, and on which rank
    clock, busy, at = [0.0] * stages, [0.0] * stages, [0] * stages
    slots: list[Slot] = []
    left = sum(map(len, orders))
    while left:
        moved = False
        for rank in range(stages):
            while at[rank] < len(orders[rank]):
                work = orders[rank][at[rank]]
                ready = [_ready(w, rank, parts, done, hop_s) for w in work]
                if any(r is None for r in ready):
                    break
                start = max([clock[rank], *(r for r in ready if r is not None)])
                spent = sum(every[w.part].seconds(w) for w in work)
                spent *= every[work[0].part].together if len(work) == 2 else 1.0
                clock[rank] = start + spent
                busy[rank] += spent
                slots.append(Slot(rank, start, clock[rank], work))
                for w in work:
                    done[(_step(w.kind), w.micro_batch, w.part, w.route)] = (clock[rank], rank)
                at[rank] += 1
                left -= 1
                moved = True
        assert moved, "a schedule waits for itself"
    slots.sort(key=lambda slot: (slot.rank, slot.start_s))
    most = tuple(_most_in_flight(slots, rank, chunks) for rank in range(stages))
    return Timeline(tuple(slots), max(clock), tuple(busy), most)


def _step(kind: Kind) -> str:
    return "backward" if kind in ("backward", "input") else kind


def _ready(
    work: Work, rank: int, parts: int, done: dict[tuple[str, int, int, int], tuple[float, int]], hop_s: float
) -> float | None:
    """When a piece of work has what it needs; None if that is not yet known."""
    needs: list[tuple[str, int, int, int]] = []
    if work.kind == "forward" and work.part:
        needs.append(("forward", work.micro_batch, work.part - 1, work.route))
    elif _step(work.kind) == "backward":
        needs.append(("forward", work.micro_batch, work.part, work.route))
        if work.part + 1 < parts:
            needs.append(("backward", work.micro_batch, work.part + 1, work.route))
    elif work.kind == "weight":
        needs.append(("backward", work.micro_batch, work.part, work.route))
    when = 0.0
    for need in needs:
        if need not in done:
            return None
        end, where = done[need]
        when = max(when, end + (hop_s if where != rank else 0.0))
    return when


def _most_in_flight(slots: Sequence[Slot], rank: int, chunks: int) -> float:
    held = most = 0
    for slot in slots:
        if slot.rank != rank:
            continue
        held += sum(w.kind == "forward" for w in slot.work)
        most = max(most, held)
        held -= sum(w.kind in ("backward", "weight") for w in slot.work)
    return most / chunks
