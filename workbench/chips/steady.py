"""A serving engine in the steady state: so many users at once, prompts and answers of given lengths.

Prefill and decoding on the same chips take turns. While a reader waits for O tokens, the engine runs O / A
decoding steps (A tokens a step) and, since every other user's request begins once in that time, all their
prefills:

    TPOT = ((O / A − ρ P) · step(B) + P · pass(n)) / O        with P = (B − 1) / n passes

with n prompts in a prefill pass, for B requests that decode at once. A share ρ of them get a token in the
pass all the same: all of them where an engine puts prompts and tokens into one batch, those of the groups
without a prompt where data-parallel groups choose for themselves, none elsewhere. On separate pools there
are no passes, and the slower pool sets the throughput. Users beyond what memory or the engine admits wait in
a queue.

The state is a fixed point, found by iteration; for a distribution of times see the request simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# Iterations until the fixed point moves less than a part in a thousand; it contracts by half each time.
_ROUNDS = 40


@dataclass(frozen=True)
class Load:
    """What users ask for: `users` at a time, each with `input_tokens` in and `output_tokens` out (means).

    requests: how many there are in all; the last ones run in an emptying engine. None: a stream without
    an end. lengths "spread": evenly between nothing and twice the mean; "mixed": about the mean, so that
    users fall out of step; "equal": all begin and end together, and prompts come in bursts.
    prefix_hit: share of a prompt that is found in a cache.
    """

    users: float
    input_tokens: float
    output_tokens: float
    requests: float | None = None
    lengths: Literal["mixed", "equal", "spread"] = "mixed"
    prefix_hit: float = 0.0

    def __post_init__(self) -> None:
        for name in ("users", "input_tokens", "output_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Load: {name} is {getattr(self, name)}; it must be above 0; change it")

    @property
    def decode_context_tokens(self) -> float:
        """Tokens that a decoded token sees, on average over an answer."""
        return self.input_tokens + self.output_tokens / 2


@dataclass(frozen=True)
class Steady:
    """The steady state. running: requests that decode at once; limit: what keeps it from being faster."""

    tpot_s: float
    ttft_s: float
    running: float
    output_tokens_per_s: float
    limit: Literal["users", "capacity", "prefill"]


def colocated(
    load: Load,
    step_s: Callable[[float], float],
    tokens_per_step: float,
    pass_s: Callable[[float], float],
    most_prompts: float,
    most_running: float,
    *,
    waits_for_prompts: bool = False,
    riding: Callable[[float], float] = lambda prompts: 0.0,
) -> Steady:
    """Prefill and decoding take turns on the same chips.

    A place that a finished answer leaves is taken at once, and prompts go before tokens: after a step in
    which answers ended there is a prefill pass over as many prompts. B · A / O answers end in a step on
    average; given that any did, n = λ / (1 − exp(−λ)) of them, often a single one, however many prompts the
    engine could take. `waits_for_prompts` holds a pass back until it is full.

    step_s: seconds of a decoding step for so many running requests; pass_s: seconds of a prefill pass over
    so many prompts, of which it holds at most most_prompts; most_running: what memory and the engine's own
    limits admit; riding: the share of the running requests that decode in a pass over so many prompts.

    Raises:
        ValueError: not even one request can run.
    """
    if most_running < 1:
        raise ValueError(
            f"colocated: most_running is {most_running}; at least one request must fit; lower the context or "
            f"use more chips"
        )
    answer = load.output_tokens / tokens_per_step
    if load.lengths == "equal":
        return _in_bursts(load, answer, step_s, pass_s, most_prompts, most_running)
    running, tpot = min(load.users, most_running), 0.0
    prompts = 1.0
    for _ in range(_ROUNDS):
        share, step = riding(prompts), step_s(running)
        # Whoever rides along is not slower than in a step of his own.
        prefill_s = max(pass_s(prompts), step if share else 0.0) / prompts
        passes = max(running - 1, 0.0) / prompts
        life = max(answer - share * passes, 0.0) * step + passes * prefill_s * prompts
        tpot = life / load.output_tokens
        # A user who waits for his own prefill does not decode.
        decoding = load.users * life / (life + prefill_s)
        new = min(max(decoding, 1.0), most_running)
        ended = running / answer
        came = min(most_prompts if waits_for_prompts else ended / -math.expm1(-ended), most_prompts)
        if abs(new - running) < 1e-3 * running and abs(came - prompts) < 1e-3 * prompts:
            break
        running, prompts = 0.5 * (running + new), 0.5 * (prompts + came)
    life = tpot * load.output_tokens
    rate = min(running / life, load.users / (life + prefill_s))
    waiting = max(load.users / rate - life, pass_s(prompts))
    limit: Literal["users", "capacity"] = "capacity" if running >= 0.999 * most_running else "users"
    return Steady(tpot, waiting, running, rate * load.output_tokens * _until_empty(load, running), limit)


def _in_bursts(
    load: Load,
    answer: float,
    step_s: Callable[[float], float],
    pass_s: Callable[[float], float],
    most_prompts: float,
    most_running: float,
) -> Steady:
    """Equal requests: a burst of full prefill passes, then all decode together until all are done.

    Whoever is prefilled first waits for the others before his second token: half the burst, on average.
    """
    running = min(load.users, most_running)
    together = min(most_prompts, running)
    burst = pass_s(together) * running / together
    decoding = answer * step_s(running)
    life = decoding + burst * (running - 1) / running / 2
    cycle = burst + decoding
    rounds = load.users / running
    return Steady(
        life / load.output_tokens, burst * (running + 1) / running / 2 + (rounds - 1) * cycle, running,
        running * load.output_tokens / cycle, "capacity" if load.users > most_running else "users",
    )  # fmt: skip


def disaggregated(
    load: Load,
    step_s: Callable[[float], float],
    tokens_per_step: float,
    prefill_s: float,
    first_token_s: float,
    most_running: float,
) -> Steady:
    """Prefill and decoding on chips of their own.

    prefill_s: seconds of the prefill pool for one more prompt, at its full rate; first_token_s: seconds one
    prompt takes from start to end; the rest as in `colocated`.

    Raises:
        ValueError: not even one request can run.
    """
    if most_running < 1:
        raise ValueError(
            f"disaggregated: most_running is {most_running}; at least one request must fit; lower the "
            f"context or use more chips"
        )
    answer = load.output_tokens / tokens_per_step
    running = min(load.users, most_running)
    for _ in range(_ROUNDS):
        life = answer * step_s(running)
        by_users = load.users / (life + first_token_s)
        rate = min(by_users, 1 / prefill_s, most_running / life)
        new = max(min(rate * life, most_running), 1.0 if load.users >= 1 else load.users)
        if abs(new - running) < 1e-3 * running:
            break
        running = 0.5 * (running + new)
    life = answer * step_s(running)
    by_users = load.users / (life + first_token_s)
    rate = min(by_users, 1 / prefill_s, most_running / life)
    limits: dict[float, Literal["users", "prefill", "capacity"]] = {
        most_running / life: "capacity", 1 / prefill_s: "prefill", by_users: "users",
    }  # fmt: skip
    waiting = max(load.users / rate - life, first_token_s)
    return Steady(
        life / load.output_tokens, waiting, running,
        rate * load.output_tokens * _until_empty(load, running), limits[rate],
    )  # fmt: skip


def _until_empty(load: Load, running: float) -> float:
    """Mean throughput over that in full swing, when a fixed number of requests must all end.

    The last ones leave places empty. Of similar length they end almost together; of spread lengths the
    engine empties over the time of the longest, in which it does half the work: half a life is lost.
    """
    if load.requests is None or math.isinf(load.requests) or running <= 1:
        return 1.0
    rounds = load.requests / running
    lost = 0.5 if load.lengths == "spread" else 0.1
    return rounds / (rounds + lost)
