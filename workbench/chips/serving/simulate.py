"""Requests through a deployment, event by event: who waits for what, and when each token leaves.

Either equal instances that prefill and decode in turn, or a pool of each with the cache sent between them.
Prompts may find their beginning in a prefix store on disk; drafts let a step yield several tokens.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from workbench.chips.serving.outcome import Outcome
from workbench.chips.serving.pool import Job, Pool
from workbench.chips.serving.prefix import Disk, PrefixPolicy, PrefixStore
from workbench.chips.serving.server import Server
from workbench.chips.serving.speculation import Drafts, answer_steps
from workbench.chips.serving.traffic import Requests

# Events at the same moment: requests come in before a server decides what to do next.
_ARRIVAL, _READY, _MOVED, _END, _WAKE = range(5)
# The key of what every prompt begins with; conversations count from 0.
_SHARED = -1


@dataclass(frozen=True)
class Transfer:
    """The cache on its way from prefill to decoding: bytes of a token and of a request, bandwidth, delay.

    A prefill instance sends one cache after the other.
    """

    token_bytes: float = 0.0
    request_bytes: float = 0.0
    byte_per_s: float = math.inf
    delay_s: float = 0.0

    def seconds(self, tokens: float) -> float:
        return (tokens * self.token_bytes + self.request_bytes) / self.byte_per_s


@dataclass(frozen=True)
class Deployment:
    """Chips that serve. `decode` None: the instances of `prefill` do both.

    prefixes: a policy and the disk to keep them on.
    """

    prefill: Pool
    decode: Pool | None = None
    transfer: Transfer = field(default_factory=Transfer)
    drafts: Drafts = field(default_factory=Drafts)
    prefixes: tuple[PrefixPolicy, Disk] | None = None

    @property
    def chips(self) -> float:
        """All chips."""
        pools = [self.prefill] + ([self.decode] if self.decode else [])
        return sum(pool.chips * pool.instances for pool in pools)


def simulate(
    requests: Requests, deployment: Deployment, *, seed: int = 0, users: int | None = None
) -> Outcome:
    """Run every request to its end.

    users: so many readers instead of the arrival times: each sends the next request of the list as soon as
    the answer before is complete (how benchmarks with a concurrency work). `seed` draws which drafts are
    accepted. Requests go to the instance with the fewest tokens to compute, or to the emptiest.

    Raises:
        ValueError: a request that does not fit into an instance, or fewer than one user.
    """
    if users is not None and users < 1:
        raise ValueError(f"simulate: users is {users}; somebody must ask; use 1 or more, or None")
    return _Run(requests, deployment, seed, users).run()


class _Run:
    """The state of one simulation."""

    def __init__(self, requests: Requests, deployment: Deployment, seed: int, users: int | None) -> None:
        self.requests, self.deployment, self.users = requests, deployment, users
        together = deployment.decode is None
        self.first = [
            Server(deployment.prefill, decodes=together) for _ in range(deployment.prefill.instances)
        ]
        self.second = (
            [Server(deployment.decode) for _ in range(deployment.decode.instances)]
            if deployment.decode
            else []
        )
        self.store = PrefixStore(*deployment.prefixes) if deployment.prefixes else None
        self.prompt, self.output = requests.prompt_tokens.tolist(), requests.output_tokens.tolist()
        self.steps = answer_steps(requests.output_tokens - 1, deployment.drafts, seed).tolist()
        n = len(requests)
        self.arrival = requests.arrival_s.copy()
        self.first_s, self.finish_s = np.full(n, np.nan), np.full(n, np.nan)
        self.found, self.run_again = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.events: list[tuple[float, int, int, object, int]] = []
        self.serial = 0
        self.versions: dict[Server, int] = {}
        self.send_free_s: dict[Server, float] = {}
        self.asked = 0

    def run(self) -> Outcome:
        start = self.users or len(self.requests)
        for index in range(min(start, len(self.requests))):
            self._ask(0.0 if self.users else float(self.arrival[index]))
        now = 0.0
        while self.events:
            now, kind, _, what, version = heapq.heappop(self.events)
            if kind == _ARRIVAL:
                self._arrive(now, what)  # type: ignore[arg-type]
            elif kind == _READY:
                self._enter(now, what, self.first, by_tokens=True)  # type: ignore[arg-type]
            elif kind == _MOVED:
                self._enter(now, what, self.second or self.first, by_tokens=False)  # type: ignore[arg-type]
            elif kind == _WAKE:
                if what.is_idle:  # type: ignore[attr-defined]
                    self._begin(now, what)  # type: ignore[arg-type]
            elif self.versions[what] == version:  # type: ignore[index]
                self._end(now, what)  # type: ignore[arg-type]
        return self._outcome()

    def _ask(self, now: float) -> None:
        self.arrival[self.asked] = now
        self._post(now, _ARRIVAL, self.asked)
        self.asked += 1

    def _post(self, when: float, kind: int, what: object, version: int = 0) -> None:
        self.serial += 1
        heapq.heappush(self.events, (when, kind, self.serial, what, version))

    def _arrive(self, now: float, index: int) -> None:
        prompt, steps = self.prompt[index], self.steps[index]
        covered, ready = 0, now
        if self.store is not None:
            repeated = int(self.requests.repeated_tokens[index])
            wanted = [
                (_SHARED, self.requests.shared_tokens),
                (int(self.requests.conversation[index]), repeated),
            ]
            found = self.store.look_up(now, wanted, prompt)
            self.found[index], self.run_again[index] = found.tokens, found.run_again
            covered, ready = found.tokens - found.run_again, found.ready_s
        growth = (self.output[index] - 1) / steps if steps else 0.0
        job = Job(index, prompt, prompt - covered, steps, growth)
        if ready > now:
            self._post(ready, _READY, job)
        else:
            self._enter(now, job, self.first, by_tokens=True)

    def _enter(self, now: float, job: Job, servers: list[Server], *, by_tokens: bool) -> None:
        server = servers[0]
        if len(servers) > 1:
            server = min(servers, key=lambda s: (s.queued_tokens, s.load) if by_tokens else (s.load, 0))
        server.submit(job)
        if server.is_idle:
            # Not at once: others may arrive at the same moment.
            self._post(now, _WAKE, server)
        else:
            ends = server.cut(now)
            if ends is not None:
                self._schedule(ends, server)

    def _begin(self, now: float, server: Server) -> None:
        ends = server.begin(now)
        if ends is not None:
            self._schedule(ends, server)

    def _schedule(self, when: float, server: Server) -> None:
        version = self.versions[server] = self.versions.get(server, 0) + 1
        self._post(when, _END, server, version)

    def _end(self, now: float, server: Server) -> None:
        advance = server.end()
        for job in advance.prompts:
            if math.isnan(self.first_s[job.index]):
                self.first_s[job.index] = now
                if self.store is not None and self.requests.shared_tokens:
                    self.store.keep(now, _SHARED, self.requests.shared_tokens)
            if job.steps < 1:
                server.release(job)
                self._finish(now, job)
            elif server.decodes:
                server.start_answer(job)
            else:
                server.release(job)
                self._send(now, job, server)
        for job in advance.answers:
            self._finish(now, job)
        self._begin(now, server)

    def _send(self, now: float, job: Job, server: Server) -> None:
        transfer = self.deployment.transfer
        sent = max(self.send_free_s.get(server, 0.0), now) + transfer.seconds(job.context)
        self.send_free_s[server] = sent
        self._post(sent + transfer.delay_s, _MOVED, job)

    def _finish(self, now: float, job: Job) -> None:
        self.finish_s[job.index] = now
        if self.store is not None:
            key = int(self.requests.conversation[job.index])
            self.store.keep(now, key, self.prompt[job.index] + self.output[job.index])
        if self.users and self.asked < len(self.requests):
            self._ask(now)

    def _outcome(self) -> Outcome:
        servers = self.first + self.second
        return Outcome(
            arrival_s=self.arrival, first_s=self.first_s, finish_s=self.finish_s,
            prompt_tokens=self.requests.prompt_tokens, output_tokens=self.requests.output_tokens,
            found_tokens=self.found, run_again_tokens=self.run_again,
            chips=self.deployment.chips, computed_tokens=sum(s.computed_tokens for s in servers),
            steps=sum(s.step for s in servers), preemptions=sum(s.preemptions for s in servers),
            most_running=max(s.most_running for s in servers),
            prefill_busy=self._busy(self.first), decode_busy=self._busy(self.second or self.first),
            read_bytes=self.store.read_bytes if self.store is not None else 0.0,
            written_bytes=self.store.written_bytes if self.store is not None else 0.0,
        )  # fmt: skip

    def _busy(self, servers: list[Server]) -> float:
        """Share of the run, from the first arrival on, in which the servers worked."""
        spent = sum(s.pass_s + s.step_s for s in servers)
        return spent / len(servers) / float(self.finish_s.max() - self.arrival[0])
