"""One serving instance: prompts wait, passes and steps take turns, and decoding jumps over like steps.

Nothing changes between two decoding steps but the context, so a server advances many steps at once: to
the next answer's end, to where memory may run out, or to the first step boundary after an arrival. The
time of a step is a straight line between the first and the last step of such a jump.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from workbench.chips.serving.pool import Job, Pool

# Steps of a jump at most: the context grows by so little that the time of a step stays a straight line.
LONGEST_JUMP = 256


@dataclass(frozen=True)
class Advance:
    """What an activity ended with: jobs whose prompt is computed, jobs whose answer is complete."""

    prompts: list[Job]
    answers: list[Job]


class Server:
    """One instance of a pool. The caller keeps the clock: `begin`, and `end` at the time that begin gave."""

    def __init__(self, pool: Pool, *, decodes: bool = True) -> None:
        self.pool, self.decodes = pool, decodes
        self.waiting: deque[Job] = deque()
        self._ends: list[tuple[int, int, Job]] = []  # a heap of running jobs, the next to end first
        self._admitted = 0
        self._slots = pool.paging.slots
        self._held = 0  # blocks of admitted prompts, and of everything where blocks are reserved
        self._context = self._growth = 0.0  # sums over running jobs
        self.step = 0
        self.pass_s = self.step_s = 0.0
        self.queued_tokens = 0  # of all who wait
        self.computed_tokens = 0
        self.preemptions = 0
        self.most_running = 0
        self._pass: list[tuple[Job, int]] | None = None
        self._jump: tuple[float, int, float, float] | None = (
            None  # start, steps, first step, growth of a step
        )
        self._may_pass = True
        self._is_full = False  # the next in line found no room, and nobody has left since

    @property
    def is_idle(self) -> bool:
        return self._pass is None and self._jump is None

    @property
    def load(self) -> int:
        """Jobs here."""
        return len(self._ends) + len(self.waiting)

    def submit(self, job: Job) -> None:
        """Put a job into the queue. Its prompt counts as computed if nothing is left to compute.

        Raises:
            ValueError: it does not fit even alone.
        """
        paging = self.pool.paging
        whole = (
            paging.needed(job.context + job.growth * job.steps)
            if self.decodes
            else paging.needed(job.context)
        )
        if whole > paging.blocks:
            raise ValueError(
                f"simulate: request {job.index} needs {whole} blocks of {paging.block_tokens} tokens; the "
                f"instance has {paging.blocks:g}; use more chips, fewer bits or shorter requests"
            )
        self.waiting.append(job)
        self.queued_tokens += job.to_compute

    def begin(self, now: float) -> float | None:
        """Start what comes next and say when it ends; None if there is nothing to do."""
        while self.waiting and not self.waiting[0].to_compute and self._admit(self.waiting[0]):
            self._run(self.waiting.popleft())
        may_pass = self._may_pass or not self._ends
        pieces = list(self._next_pass()) if may_pass else []
        if pieces:
            self._pass = pieces
            seconds = self._pass_seconds(pieces)
            self.pass_s += seconds
            self._may_pass = self.pool.order == "prompts first"
            return now + seconds
        self._may_pass = True
        if not self._ends:
            return None
        self._make_room()
        if not self._ends:
            return self.begin(now)
        return self._start_jump(now, 1 if not may_pass and self.waiting else LONGEST_JUMP)

    def cut(self, now: float) -> float | None:
        """End a jump at the first step boundary from now on, and say when that is.

        None where there is nothing to cut: no jump, or no room for a newcomer anyway.
        """
        if self._jump is None or self._is_full:
            return None
        start, steps, first, more = self._jump
        # The smallest i that reaches `now`, searched from one that cannot be beyond it.
        i = min(max(int((now - start) / max(first, first + more * steps)), 1), steps)
        while i < steps and start + _elapsed(i, first, more) < now:
            i += 1
        self._jump = (start, i, first, more)
        return start + _elapsed(i, first, more)

    def end(self) -> Advance:
        """Finish the activity."""
        if self._pass is not None:
            pieces, self._pass = self._pass, None
            return Advance(self._computed(pieces), [])
        assert self._jump is not None
        (_, steps, first, more), self._jump = self._jump, None
        self.step += steps
        self.step_s += _elapsed(steps, first, more)
        self._context += steps * self._growth
        done = []
        while self._ends and self._ends[0][0] <= self.step:
            job = heapq.heappop(self._ends)[2]
            self._leave(job)
            done.append(job)
        return Advance([], done)

    def start_answer(self, job: Job) -> None:
        """Let a job whose prompt was just computed here decode."""
        self._run(job)

    def release(self, job: Job) -> None:
        """Give back what a job holds that leaves after its prompt."""
        self._slots += 1
        self._held -= job.blocks
        self._is_full = False
        job.admitted = job.blocks = 0

    # What a server does inside.

    def _admit(self, job: Job) -> bool:
        paging = self.pool.paging
        if job.admitted:
            return True
        if self._is_full:
            return False
        tokens = job.context + (job.growth * job.steps if paging.is_reserved and self.decodes else 0.0)
        blocks = paging.needed(tokens)
        # Growing requests need a block to go on with, or the newcomer would have to leave at once.
        spare = 0 if paging.is_reserved or not self.decodes else len(self._ends)
        if self._slots < 1 or self._used() + blocks + spare > paging.blocks:
            self._is_full = True
            return False
        self._admitted += 1
        job.admitted, job.blocks = self._admitted, blocks
        self._slots -= 1
        self._held += blocks
        return True

    def _used(self) -> float:
        """Blocks in use, at most: exact where they are reserved or memory is short."""
        paging = self.pool.paging
        if paging.is_reserved or not self._ends:
            return self._held
        bound = self._context / paging.block_tokens + len(self._ends) + self._held
        return bound if bound + len(self._ends) < 0.9 * paging.blocks else self._held + self._grown(0)

    def _grown(self, steps: int) -> int:
        """Blocks of the running jobs after so many more steps."""
        size, at = self.pool.paging.block_tokens, self.step + steps
        return sum(math.ceil((j.context + j.growth * (at - j.start_step)) / size) for _, _, j in self._ends)

    def _next_pass(self) -> Iterator[tuple[Job, int]]:
        """Jobs in the order of the queue and how many of their tokens the next pass computes."""
        budget = self.pool.chunk_tokens * self.pool.groups
        for job in self.waiting:
            if budget <= 0 or not job.to_compute or not self._admit(job):
                return
            piece = min(job.to_compute, self.pool.chunk_tokens, budget)
            budget -= piece
            yield job, piece

    def _pass_seconds(self, pieces: list[tuple[Job, int]]) -> float:
        new = sum(piece for _, piece in pieces)
        seen = sum(piece * (job.context - job.to_compute + piece / 2) for job, piece in pieces) / new
        return self.pool.pace.pass_s(new, max(piece for _, piece in pieces), seen)

    def _computed(self, pieces: list[tuple[Job, int]]) -> list[Job]:
        for job, piece in pieces:
            job.to_compute -= piece
            self.computed_tokens += piece
            self.queued_tokens -= piece
        first = [self.waiting.popleft() for _ in pieces]
        self.waiting.extendleft(job for job in reversed(first) if job.to_compute)
        return [job for job in first if not job.to_compute]

    def _run(self, job: Job) -> None:
        job.start_step, job.end_step = self.step, self.step + job.steps
        if not self.pool.paging.is_reserved:
            self._held -= job.blocks
            job.blocks = 0
        self._context += job.context
        self._growth += job.growth
        heapq.heappush(self._ends, (job.end_step, job.admitted, job))
        self.most_running = max(self.most_running, len(self._ends))

    def _leave(self, job: Job) -> None:
        self._context -= job.context + job.growth * (self.step - job.start_step)
        self._growth -= job.growth
        self.release(job)

    def _start_jump(self, now: float, most: int) -> float:
        steps = min(self._ends[0][0] - self.step, most)
        paging, running = self.pool.paging, len(self._ends)
        if not paging.is_reserved and paging.blocks != math.inf:
            bound = (self._context + steps * self._growth) / paging.block_tokens + running + self._held
            if bound > paging.blocks:
                while steps > 1 and self._held + self._grown(steps) > paging.blocks:
                    steps = (steps + 1) // 2
        mean, growth = self._context / running, self._growth / running
        first = self.pool.pace.step_s(running, mean)
        last = self.pool.pace.step_s(running, mean + (steps - 1) * growth) if steps > 1 else first
        more = (last - first) / (steps - 1) if steps > 1 else 0.0
        self._jump = (now, steps, first, more)
        return now + _elapsed(steps, first, more)

    def _make_room(self) -> None:
        """Send the youngest away until the others can take a step."""
        paging = self.pool.paging
        if paging.is_reserved or paging.blocks == math.inf:
            return
        quick = (self._context + self._growth) / paging.block_tokens + len(self._ends) + self._held
        while quick > paging.blocks and self._held + self._grown(1) > paging.blocks:
            partly = list(takewhile(lambda job: job.admitted, self.waiting))
            youngest = max([*partly, *(job for _, _, job in self._ends)], key=lambda job: job.admitted)
            self.preemptions += 1
            if youngest in partly:
                self.release(youngest)
                self._start_over(youngest)
                continue
            self._ends = [entry for entry in self._ends if entry[2] is not youngest]
            heapq.heapify(self._ends)
            passed = self.step - youngest.start_step
            self._leave(youngest)
            # All its tokens are computed again, and that pass yields the next one.
            youngest.context += youngest.growth * (passed + 1)
            youngest.steps -= passed + 1
            youngest.to_compute = 0
            self._start_over(youngest)
            # Admitted prompts stay in front: they hold blocks, so they must be able to go on.
            self.waiting.insert(len(partly), youngest)

    def _start_over(self, job: Job) -> None:
        whole = math.ceil(job.context)
        self.queued_tokens += whole - job.to_compute
        job.to_compute = whole


def _elapsed(steps: int, first: float, more: float) -> float:
    """Seconds of so many steps, each `more` longer than the one before."""
    return steps * first + more * steps * (steps - 1) / 2
