"""How much traffic a deployment takes before readers wait too long."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from workbench.chips.serving.outcome import Limits, Outcome
from workbench.chips.serving.simulate import Deployment, simulate
from workbench.chips.serving.traffic import Traffic, draw


def at_rate(traffic: Traffic, deployment: Deployment, rate_per_s: float, count: int, seed: int) -> Outcome:
    """The same readers, coming at another rate."""
    requests = draw(dataclasses.replace(traffic, rate_per_s=rate_per_s), count, seed)
    return simulate(requests, deployment, seed=seed)


def load_rows(
    traffic: Traffic, deployment: Deployment, rates_per_s: Iterable[float], limits: Limits,
    *, count: int = 1000, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a rate: {"rate_per_s", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "attainment",
    "goodput", "output_tokens_per_s_per_chip"}."""
    rows = []
    for rate in rates_per_s:
        outcome = at_rate(traffic, deployment, rate, count, seed)
        middle, tail = outcome.quantiles((0.5, 0.99))
        rows.append(
            {
                "rate_per_s": rate,
                "ttft_p50_s": middle["ttft_s"], "ttft_p99_s": tail["ttft_s"],
                "tpot_p50_s": middle["tpot_s"], "tpot_p99_s": tail["tpot_s"],
                "attainment": outcome.attainment(limits),
                "goodput": outcome.goodput(limits),
                "output_tokens_per_s_per_chip": outcome.output_tokens_per_s / deployment.chips,
            }
        )  # fmt: skip
    return rows


def highest_rate(
    traffic: Traffic, deployment: Deployment, limits: Limits,
    *, share: float = 0.9, count: int = 1000, seed: int = 0, tolerance: float = 0.02,
) -> float:  # fmt: skip
    """Requests a second at which `share` of them still stay within the limits, to a relative tolerance.

    A finite trace hides an overload that builds up slowly: `count` bounds how long it has.

    Raises:
        ValueError: even a lone request exceeds the limits, or a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"highest_rate: share is {share}; it is a part of all requests; use (0, 1]")

    def keeps(rate: float) -> bool:
        return at_rate(traffic, deployment, rate, count, seed).attainment(limits) >= share

    low = traffic.rate_per_s
    while not keeps(low):
        low /= 4
        if low < traffic.rate_per_s / 4**12:
            alone = at_rate(traffic, deployment, low, count, seed).quantiles((share,))[0]
            raise ValueError(
                f"highest_rate: with nobody else there, {share:.0%} of the requests wait up to "
                f"{alone['ttft_s']:.3g} s and {alone['tpot_s']:.3g} s a token; limits are "
                f"{limits.ttft_s:g} and {limits.tpot_s:g}; raise them or use faster chips"
            )
    high = 2 * low
    while keeps(high):
        low, high = high, 2 * high
        if high > 1e9:
            return low
    while high / low > 1 + tolerance:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low
