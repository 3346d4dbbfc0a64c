"""Faults of a training run: how often, what each costs, and how much of the time is useful.

A run saves its state after every τ seconds of work, which stops it for δ. A fault throws away what was done
since, and takes R to get going again. With faults at a rate λ of the whole cluster, memoryless, a segment of
τ + δ takes on average

    E = (1/λ + R) (e^{λ (τ + δ)} − 1)

seconds (faults may also strike while it is repeated; none while it restarts), so the useful share is τ / E.
It is largest near τ = √(2 δ / λ) (Young), which Daly refined. A link that flaps stops everybody for a moment
and breaks nothing.

Source: J. W. Young, CACM 17 (1974) 530; J. T. Daly, FGCS 22 (2006) 303.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Faults:
    """What happens to a cluster. Rates are of one chip, in 1/s; times in s.

    fault_rate: faults that end the job; restart_s: until it goes on from a checkpoint; save_s: that a
    checkpoint stops the job for; flap_rate: links that drop and come back; flap_s: that one stops the job
    for; spread: standard deviation of a rank's speed, of which the slowest sets the pace.
    """

    fault_rate: float
    restart_s: float
    save_s: float
    flap_rate: float = 0.0
    flap_s: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError(f"Faults: got {self}; rates and times are 0 or more; change the negative one")

    def replace(self, **changes: float) -> Faults:
        """A copy with some fields changed, checked anew."""
        return replace(self, **changes)

    def between_s(self, chips: float) -> float:
        """Mean time between faults of a cluster."""
        return math.inf if self.fault_rate == 0 else 1 / (self.fault_rate * chips)


def young(save_s: float, between_s: float) -> float:
    """Seconds of work between checkpoints, first order: √(2 δ M)."""
    return math.sqrt(2 * save_s * between_s)


def daly(save_s: float, between_s: float) -> float:
    """Seconds of work between checkpoints, higher order; the time between faults where saving is slow."""
    if save_s >= 2 * between_s:
        return between_s
    x = save_s / (2 * between_s)
    return young(save_s, between_s) * (1 + math.sqrt(x) / 3 + x / 9) - save_s


def useful_share(faults: Faults, chips: float, interval_s: Any) -> Any:
    """Share of the time that makes progress which lasts, by the closed form; flaps slow all of it down.

    Shapes: intervals broadcast.
    """
    interval, rate = np.asarray(interval_s, dtype=np.float64), faults.fault_rate * chips
    segment = interval + faults.save_s
    # Where faults are rare expm1 keeps its digits; with none, a segment takes what it takes.
    takes = segment if rate == 0 else (1 / rate + faults.restart_s) * np.expm1(rate * segment)
    return interval / takes / (1 + faults.flap_rate * chips * faults.flap_s)


def best_interval(faults: Faults, chips: float) -> float:
    """Seconds of work between checkpoints that make the most progress, searched in the closed form.

    Raises:
        ValueError: faults or savings cost nothing, so that no interval is best.
    """
    if faults.fault_rate * chips == 0 or faults.save_s == 0:
        raise ValueError(
            f"best_interval: fault rate {faults.fault_rate}, save {faults.save_s} s; without faults never "
            f"save, without a cost always; give both above 0"
        )
    between = faults.between_s(chips)
    low, high = 1e-4 * young(faults.save_s, between), 20 * (young(faults.save_s, between) + between)
    for _ in range(60):  # golden section on a function with one peak, over logarithms
        a, b = low * (high / low) ** 0.382, low * (high / low) ** 0.618
        low, high = (a, high) if useful_share(faults, chips, a) < useful_share(faults, chips, b) else (low, b)
    return math.sqrt(low * high)


def slowest(spread: float, ranks: float) -> float:
    """Mean time of the slowest of many ranks over the mean of all, normal with this standard deviation.

    The mean of the largest of n normal numbers, ∫ x dΦⁿ(x), by quadrature.

    Raises:
        ValueError: fewer than one rank, or a negative spread.
    """
    if ranks < 1 or spread < 0:
        raise ValueError(f"slowest: {ranks} ranks, spread {spread}; use 1 or more ranks and a spread from 0")
    # Equal shares of probability of the largest number: its quantiles are Φ⁻¹(u^(1/n)).
    shares = (np.arange(2000) + 0.5) / 2000
    normal = NormalDist()
    quantiles = [normal.inv_cdf(float(u ** (1 / ranks))) for u in shares]
    return 1 + spread * float(np.mean(quantiles)) if ranks > 1 else 1.0


def goodput(faults: Faults, chips: float, interval_s: float | None = None) -> float:
    """Share of chip time that trains: checkpoints and faults, flaps, and waiting for the slowest.

    interval_s: seconds of work between checkpoints; None: the best.
    """
    if interval_s is None:
        free = faults.save_s == 0 or faults.fault_rate * chips == 0
        interval_s = 1e-9 if faults.save_s == 0 else 1e12 if free else best_interval(faults, chips)
    return float(useful_share(faults, chips, interval_s)) / slowest(faults.spread, chips)


@dataclass(frozen=True)
class Event:
    """Part of a run: "work", "save", "lost" (work done in vain), "restart" or "flap"."""

    kind: str
    start_s: float
    end_s: float


def simulate_run(
    faults: Faults, chips: float, interval_s: float, seconds: float, rng: np.random.Generator
) -> list[Event]:
    """One run, fault by fault, until `seconds` have passed; every event may be the last and is cut there.

    Faults and flaps arrive at random moments, also while a checkpoint is written; none during a restart.
    """
    now, done, events = 0.0, 0.0, list[Event]()  # done: work since the last checkpoint
    fault_in, flap_in = (_wait(rate * chips, rng) for rate in (faults.fault_rate, faults.flap_rate))
    kept = 0  # events up to the last checkpoint, which no fault can take back
    while now < seconds:
        is_saving = done >= interval_s
        left = faults.save_s if is_saving else interval_s - done
        step = min(left, fault_in, flap_in)
        events.append(Event("save" if is_saving else "work", now, now + step))
        now, fault_in, flap_in = now + step, fault_in - step, flap_in - step
        if step == left:
            done = 0.0 if is_saving else interval_s
            kept = len(events) if is_saving else kept
        elif fault_in == 0:
            events[kept:] = [replace(e, kind="lost") for e in events[kept:]]
            events.append(Event("restart", now, now + faults.restart_s))
            now, done, kept = now + faults.restart_s, 0.0, len(events)
            fault_in = _wait(faults.fault_rate * chips, rng)
        else:
            events.append(Event("flap", now, now + faults.flap_s))
            now, flap_in = now + faults.flap_s, _wait(faults.flap_rate * chips, rng)
            done = done if is_saving else done + step  # a checkpoint that is interrupted is written anew
    return [replace(e, end_s=min(e.end_s, seconds)) for e in events if e.start_s < seconds]


def shares(events: list[Event]) -> dict[str, float]:
    """Share of a run's time that each kind of event takes."""
    total = sum(e.end_s - e.start_s for e in events)
    kinds = ("work", "save", "lost", "restart", "flap")
    return {k: sum(e.end_s - e.start_s for e in events if e.kind == k) / total for k in kinds}


def _wait(rate: float, rng: np.random.Generator) -> float:
    return math.inf if rate == 0 else float(rng.exponential(1 / rate))


def simulated_share(
    faults: Faults, chips: float, interval_s: float, seconds: float, *, runs: int, seed: int
) -> npt.NDArray[np.float64]:
    """Useful share of each of several runs. -> (runs,)."""
    rngs = np.random.default_rng(seed).spawn(runs)
    return np.array([shares(simulate_run(faults, chips, interval_s, seconds, rng))["work"] for rng in rngs])
