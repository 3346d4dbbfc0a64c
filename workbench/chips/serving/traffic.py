"""Requests from a seed: when they come, how long prompts and answers are, and which prompts begin alike.

Gaps between sessions are gamma distributed. Their coefficient of variation is the burstiness: 0 is a
clock, 1 a Poisson process, above 1 bursts and silences. A session is a conversation: each turn's prompt
begins with everything said before, which a prefix cache may still have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens with a given mean.

    shape "fixed"; "uniform" between nothing and twice the mean, as benchmarks with range ratio 0 draw
    them; "lognormal" with `variation` as standard deviation over mean. Never below 1, never above `most`.

    Raises:
        ValueError: an unknown shape, a mean below 1, or no positive variation of a lognormal.
    """

    mean: float
    shape: Literal["fixed", "uniform", "lognormal"] = "fixed"
    variation: float = 1.0
    most: float = math.inf

    def __post_init__(self) -> None:
        if self.shape not in ("fixed", "uniform", "lognormal"):
            raise ValueError(
                f"Lengths: shape {self.shape!r} is unknown; choose one of fixed, uniform, lognormal"
            )
        if self.mean < 1 or self.most < self.mean:
            raise ValueError(
                f"Lengths: mean is {self.mean} and most {self.most}; 1 ≤ mean ≤ most must hold; change one"
            )
        if self.shape == "lognormal" and not self.variation > 0:
            raise ValueError(
                f"Lengths: variation is {self.variation}; a lognormal needs one above 0; use shape 'fixed'"
            )

    def draw(self, count: int, random: np.random.Generator) -> Integers:
        """Shapes: -> (count,)."""
        if self.shape == "fixed":
            drawn = np.full(count, self.mean)
        elif self.shape == "uniform":
            drawn = random.uniform(0, 2 * self.mean, count)
        else:
            variance = math.log1p(self.variation**2)
            drawn = random.lognormal(math.log(self.mean) - variance / 2, math.sqrt(variance), count)
        return np.clip(np.rint(drawn), 1, self.most).astype(np.int64)


@dataclass(frozen=True)
class Traffic:
    """What comes in. rate_per_s counts requests; a session has `turns` of them on average (geometric).

    prompt: tokens that a turn adds; answer: tokens it is given. Turns of a session are `pause_s` apart on
    average (exponential), from request to request. `shared_tokens` begin every prompt: a system prompt.
    A prompt is at most `longest_prompt` tokens: a conversation that outgrows it starts afresh.

    Raises:
        ValueError: no positive rate, a negative burstiness or pause, or fewer than one turn.
    """

    rate_per_s: float
    prompt: Lengths
    answer: Lengths
    burstiness: float = 1.0
    turns: float = 1.0
    pause_s: float = 60.0
    shared_tokens: int = 0
    longest_prompt: int = 1_000_000

    def __post_init__(self) -> None:
        for name, least in (
            ("rate_per_s", 1e-12), ("burstiness", 0.0), ("turns", 1.0), ("pause_s", 0.0),
            ("shared_tokens", 0),
        ):  # fmt: skip
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"Traffic: {name} is {getattr(self, name)}; it must be at least {least:g}; change it"
                )


@dataclass(frozen=True)
class Requests:
    """A trace, by arrival. Shapes: all (n,).

    conversation: which session a request belongs to; repeated_tokens: how many of its first tokens that
    session has seen before; shared_tokens: how many begin every prompt.
    """

    arrival_s: Floats
    prompt_tokens: Integers
    output_tokens: Integers
    conversation: Integers
    repeated_tokens: Integers
    shared_tokens: int = 0

    def __post_init__(self) -> None:
        shapes = {
            a.shape for a in (self.arrival_s, self.prompt_tokens, self.output_tokens, self.conversation)
        }
        if len(shapes) != 1 or not len(self.arrival_s):
            raise ValueError(
                f"Requests: arrays have shapes {sorted(shapes)}; they need "
                f"one common length above 0; cut them"
            )
        if (np.diff(self.arrival_s) < 0).any():
            raise ValueError(
                "Requests: arrival_s falls somewhere; requests must be sorted by arrival; sort them"
            )
        if (self.prompt_tokens < 1).any() or (self.output_tokens < 1).any():
            raise ValueError(
                "Requests: a prompt or an answer is empty; each needs 1 token or more; drop the request"
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate_per_s(self) -> float:
        """Requests a second over the trace."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span if span else math.inf


def trace(arrival_s: npt.ArrayLike, prompt_tokens: npt.ArrayLike, output_tokens: npt.ArrayLike) -> Requests:
    """Requests without a common past, from three lists of one length; sorted by arrival."""
    arrival = np.asarray(arrival_s, dtype=np.float64)
    prompt, output = (np.asarray(a, dtype=np.int64) for a in (prompt_tokens, output_tokens))
    if arrival.shape != prompt.shape or arrival.shape != output.shape:
        raise ValueError(
            f"trace: got {arrival.shape} arrivals, {prompt.shape} prompts and {output.shape} answers; there "
            f"must be one of each; cut them alike"
        )
    order = np.argsort(arrival, kind="stable")
    nobody, nothing = np.arange(len(arrival)), np.zeros(len(arrival), dtype=np.int64)
    return Requests(arrival[order], prompt[order], output[order], nobody, nothing)


def draw(traffic: Traffic, count: int, seed: int) -> Requests:
    """`count` requests of a traffic; the same seed gives the same ones.

    Sessions begin at rate_per_s / turns, so that requests come at rate_per_s once the first sessions have
    had time for all their turns.

    Raises:
        ValueError: fewer than one request.
    """
    if count < 1:
        raise ValueError(f"draw: count is {count}; a trace has 1 request or more; change it")
    random = np.random.default_rng(seed)
    # Every session has a turn at least, so `count` of them are enough.
    starts = np.cumsum(_gaps(traffic.turns / traffic.rate_per_s, traffic.burstiness, count, random))
    turns = random.geometric(1 / traffic.turns, count)
    session = np.repeat(np.arange(count), turns)[: 4 * count]
    first = np.r_[True, session[1:] != session[:-1]]
    pause = np.where(first, 0.0, random.exponential(traffic.pause_s, len(session)))
    waited = np.cumsum(pause)
    arrival = starts[session] + waited - _at_start(waited, first)
    asked = traffic.prompt.draw(len(session), random)
    answered = traffic.answer.draw(len(session), random)
    said = np.cumsum(asked + answered)
    before = said - asked - answered
    before = before - _at_start(before, first)
    repeated = np.where(first, 0, before + traffic.shared_tokens)
    prompt = traffic.shared_tokens + before + asked
    outgrown = prompt > traffic.longest_prompt
    repeated = np.where(outgrown, 0, repeated)
    prompt = np.where(outgrown, np.minimum(traffic.shared_tokens + asked, traffic.longest_prompt), prompt)
    order = np.argsort(arrival, kind="stable")[:count]
    return Requests(
        arrival[order], prompt[order], answered[order], session[order], repeated[order], traffic.shared_tokens
    )


def _gaps(mean_s: float, burstiness: float, count: int, random: np.random.Generator) -> Floats:
    if burstiness == 0:
        return np.full(count, mean_s)
    shape = burstiness**-2
    return random.gamma(shape, mean_s / shape, count)


def _at_start(values: npt.NDArray, first: npt.NDArray[np.bool_]) -> npt.NDArray:
    """The value that each entry's session began with."""
    starts = np.flatnonzero(first)
    return values[starts][np.cumsum(first) - 1]
