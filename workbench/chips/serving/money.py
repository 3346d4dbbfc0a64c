"""What tokens cost in dollars and in energy, and what a day of service earns.

Energy counts the all-in power of a chip as if it were always under full load, so it is an upper bound where
chips idle. Rents and list prices are in chips.prices; an hour of a chip that nobody rents out is made from
its purchase price by `owned`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.accounting.serving import daily_cost, margin, nodes_needed
from workbench.chips.catalog import FOLDER, load_chip
from workbench.chips.prices import power_kw, purchases
from workbench.chips.quantity import Quantity
from workbench.chips.serving.outcome import Outcome
from workbench.facts import fact
from workbench.units import HOUR_S, MILLION

_HOURS_A_YEAR = 8766.0


@dataclass(frozen=True)
class TokenCost:
    """Dollars and kilowatt-hours of a million tokens: of output only, or of all that passed through."""

    usd_per_million_output: float
    usd_per_million: float
    kwh_per_million_output: float
    kwh_per_million: float


def token_cost(outcome: Outcome, usd_per_chip_h: float, kw_per_chip: float) -> TokenCost:
    """Cost of a simulated run: all chips, from the first arrival to the last token.

    Raises:
        ValueError: a negative price or power.
    """
    if usd_per_chip_h < 0 or kw_per_chip < 0:
        raise ValueError(
            f"token_cost: got {usd_per_chip_h} USD/h and {kw_per_chip} kW; neither can be negative; change it"
        )
    hours = outcome.chips * outcome.seconds / HOUR_S
    output = float(outcome.output_tokens.sum()) / MILLION
    everything = output + float(outcome.prompt_tokens.sum()) / MILLION
    usd, kwh = hours * usd_per_chip_h, hours * kw_per_chip
    return TokenCost(usd / output, usd / everything, kwh / output, kwh / everything)


def owned(chip: str, price_usd: float | None = None) -> Quantity:
    """USD of an hour of a chip that is bought: price and energy over the hours that it works.

    Without a price, the published ones: the value is made from the last of them, and all of them span the
    band. A price at system level already holds hosts and network.

    Raises:
        ValueError: no purchase price of the chip is known.
    """
    key = load_chip(chip).key
    known = purchases(key)
    if price_usd is None and not known:
        raise ValueError(
            f"owned: no purchase price of {key} is known; its rent may be (chips.rent); give price_usd"
        )
    kw = power_kw(key)
    assert kw.value
    rows = [{"price": price_usd, "currency": "USD", "source": "given"}] if price_usd is not None else known
    middle = [_hour(row, kw.value, ("value",) * 5) for row in rows]
    low = [_hour(row, kw.value, ("upper", "lower", "lower", "upper", "upper")) for row in rows]
    high = [_hour(row, kw.value, ("lower", "upper", "upper", "lower", "lower")) for row in rows]
    words = "; ".join(f"{row['currency']} {row['price']:,} ({row['source']})" for row in rows)
    return Quantity(
        middle[-1], "USD/h", f"price {words}; depreciation and energy of data/chips/service_day.json",
        "derived", "C", min(low), max(high),
    )  # fmt: skip


def _hour(row: dict[str, Any], kw: float, ends: tuple[str, ...]) -> float:
    terms = _document()["ownership"]
    years, node, kwh, rate, used = (
        float(terms[name][end])
        for name, end in zip(
            ("years", "node_share", "usd_per_kwh", "cny_per_usd", "in_use"), ends, strict=True
        )
    )
    usd = row["price"] / (rate if row["currency"] == "CNY" else 1.0)
    share = 1.0 if "system" in row["source"] else node
    return float(usd * share / (years * _HOURS_A_YEAR * used) + kw * kwh)


@dataclass(frozen=True)
class ServiceDay:
    """A day's tokens, what they earn at list prices, and what the nodes cost. margin: profit over cost."""

    revenue_usd: float
    cost_usd: float
    margin: float
    prefill_nodes: float
    decode_nodes: float
    nodes: float


def service_day(
    *,
    input_tokens_per_s_per_node: float | None = None,
    output_tokens_per_s_per_node: float | None = None,
    nodes: float | None = None,
    usd_per_chip_h: float | None = None,
    usd_per_million: tuple[float, float, float] | None = None,
) -> ServiceDay:
    """DeepSeek's day of V3 and R1 service from its inputs: volumes, rates of a node, rent, list prices.

    Every input not given is the published one. Without `nodes`, they are what the rates and volumes need;
    with the average that DeepSeek rented (fact "serving_nodes") the cost is the published one. The input rate
    counts tokens found in the cache, as the source does. usd_per_million: cache hit, cache miss, output.

    Raises:
        ValueError: a rate that is not positive.
    Source: DeepSeek-V3/R1 inference system overview (open-infra-index, 1 March 2025).
    """
    prices = _document()["list_prices"]
    hit, miss, out = usd_per_million or (prices["cache_hit"], prices["cache_miss"], prices["output"])
    into = (
        fact("serving_prefill_tokens_per_s")
        if input_tokens_per_s_per_node is None
        else input_tokens_per_s_per_node
    )
    from_ = (
        fact("serving_decode_tokens_per_s")
        if output_tokens_per_s_per_node is None
        else output_tokens_per_s_per_node
    )
    if not (into > 0 and from_ > 0):
        raise ValueError(
            f"service_day: rates of a node are {into} in and {from_} out; both must be above 0; change them"
        )
    asked, cached = fact("serving_input_tokens_per_day"), fact("serving_cached_tokens_per_day")
    made = fact("serving_output_tokens_per_day")
    revenue = (cached * hit + (asked - cached) * miss + made * out) / MILLION
    prefill, decode = nodes_needed(asked, into), nodes_needed(made, from_)
    used = prefill + decode if nodes is None else nodes
    rent = fact("h800_price_per_hour") if usd_per_chip_h is None else usd_per_chip_h
    cost = daily_cost(used, int(fact("serving_chips_per_node")), rent)
    return ServiceDay(revenue, cost, margin(revenue, cost), prefill, decode, used)


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "service_day.json").read_text(encoding="utf-8"))
    return document
