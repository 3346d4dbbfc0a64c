"""Pipeline schedules: what each rank does, one piece of work after the other.

1F1B fills the pipeline and then alternates a forward and a backward pass. Interleaving gives a rank several
chunks of layers, so that the pipeline fills in smaller steps. DualPipe feeds micro-batches from both ends:
a rank nearly always has a forward and a backward pass of different micro-batches to run together, each
hiding the other's messages, and keeps two copies of the parameters for it.

Source: Megatron-LM (arXiv 2104.04473), section 2.2, for 1F1B and interleaving; V3 report
(arXiv 2412.19437), section 3.2.1, figures 4 and 5, and github.com/deepseek-ai/DualPipe for its phases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["1f1b", "interleaved", "dualpipe"]
SCHEDULES: tuple[Schedule, ...] = ("1f1b", "interleaved", "dualpipe")
Kind = Literal["forward", "backward", "input", "weight"]


@dataclass(frozen=True)
class Work:
    """One pass of a micro-batch through one part of the model.

    kind "backward" is all of it; "input" and "weight" are its halves where they run apart. `part` counts
    along the model, whatever rank holds it; route 1 enters at the last rank.
    """

    kind: Kind
    micro_batch: int
    part: int
    route: int = 0


def order_of(
    schedule: Schedule, stages: int, micro_batches: int, chunks: int = 1
) -> list[list[tuple[Work, ...]]]:
    """For each rank what it does, one after the other; a pair runs together.

    Raises:
        ValueError: an unknown schedule; interleaving whose micro-batches no multiple of the stages make up;
            DualPipe over an odd number of stages, or with fewer than two micro-batches a stage.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"order_of: schedule {schedule!r} is unknown; choose one of {SCHEDULES}")
    if stages < 1 or micro_batches < 1 or chunks < 1 or (chunks > 1 and schedule != "interleaved"):
        raise ValueError(
            f"order_of: {stages} stages, {micro_batches} micro-batches, {chunks} chunks; all must be 1 or "
            f"more, and chunks 1 unless interleaved; change them"
        )
    if schedule == "1f1b":
        return [list(_one_forward_one_backward(rank, stages, micro_batches)) for rank in range(stages)]
    if schedule == "interleaved":
        if micro_batches % stages:
            raise ValueError(
                f"order_of: {micro_batches} micro-batches over {stages} stages; interleaving takes them in "
                f"groups of {stages}; use a multiple"
            )
        return [list(_interleaved(rank, stages, micro_batches, chunks)) for rank in range(stages)]
    if stages % 2 or micro_batches % 2 or micro_batches < 2 * stages:
        raise ValueError(
            f"order_of: DualPipe with {stages} stages and {micro_batches} micro-batches; it needs an even "
            f"number of stages and at least twice as many micro-batches, even too; change one"
        )
    return [list(_dualpipe(rank, stages, micro_batches)) for rank in range(stages)]


def _one_forward_one_backward(rank: int, stages: int, micro_batches: int) -> Iterator[tuple[Work, ...]]:
    ahead = min(stages - 1 - rank, micro_batches)
    for i in range(micro_batches + ahead):
        if i < micro_batches:
            yield (Work("forward", i, rank),)
        if i >= ahead:
            yield (Work("backward", i - ahead, rank),)


def _interleaved(rank: int, stages: int, micro_batches: int, chunks: int) -> Iterator[tuple[Work, ...]]:
    """Groups of `stages` micro-batches go through a rank's first chunk, then its second, and so on."""
    total = micro_batches * chunks

    def nth(i: int, kind: Kind) -> Work:
        group, inside = divmod(i, stages * chunks)
        chunk = inside // stages
        chunk = chunk if kind == "forward" else chunks - 1 - chunk
        return Work(kind, group * stages + inside % stages, chunk * stages + rank)

    ahead = min(2 * (stages - rank - 1) + (chunks - 1) * stages, total)
    for i in range(total + ahead):
        if i < total:
            yield (nth(i, "forward"),)
        if i >= ahead:
            yield (nth(i - ahead, "backward"),)


def _dualpipe(rank: int, stages: int, micro_batches: int) -> Iterator[tuple[Work, ...]]:
    """Eight phases; `near` is the route whose entrance is closer to this rank, `far` the other one."""
    half, place = stages // 2, min(rank, stages - 1 - rank)
    near = 0 if rank < half else 1
    far = 1 - near
    next_one = {(kind, route): 0 for kind in ("forward", "backward") for route in (0, 1)}
    postponed: list[Work] = []

    def work(kind: Kind, route: int) -> Work:
        counter = ("forward" if kind == "forward" else "backward", route)
        number = next_one[counter]
        next_one[counter] += 1
        return Work(kind, number, rank if route == 0 else stages - 1 - rank, route)

    def split(route: int) -> tuple[Work, ...]:
        """The input's half of a backward pass; that of the weights is put off."""
        first = work("input", route)
        postponed.append(Work("weight", first.micro_batch, first.part, route))
        return (first,)

    inner = half - place - 1  # ranks between this one and the middle
    for _ in range(2 * inner):
        yield (work("forward", near),)
    for _ in range(place + 1):
        yield (work("forward", near),)
        yield (work("forward", far),)
    for _ in range(inner):
        yield split(far)
        yield (postponed.pop(0),)
        yield (work("forward", far),)
    for i in range(micro_batches // 2 - stages + place + 1):
        if i == 0 and inner == 0:
            # The two middle ranks feed each other: run together, each would wait for the other.
            yield (work("forward", near),)
            yield (work("backward", far),)
        else:
            yield (work("forward", near), work("backward", far))
        yield (work("forward", far), work("backward", near))
    for _ in range(inner):
        yield (work("backward", far),)
        yield (work("forward", far), work("backward", near))
    for i in range(2 * (place + 1)):
        # The second half of this phase keeps its weights for the end, where they fill the bubble.
        route = far if i % 2 == 0 else near
        yield split(route) if i >= place + 1 else (work("backward", route),)
    for _ in range(inner):
        yield (postponed.pop(0),)
        yield split(near)
    for weight in postponed:
        yield (weight,)
