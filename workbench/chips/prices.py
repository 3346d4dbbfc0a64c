"""What a chip costs by the hour and draws from the wall, and what tokens are sold for.

List prices are not costs. Ascend and Cambricon have no public rent: `rent` says so and gives what is
known of their purchase.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from workbench.chips.catalog import FOLDER, load_chip, unknown
from workbench.chips.quantity import Confidence, Quantity

Terms = Literal["hyperscaler", "neocloud", "three_year"]
TERMS = ("hyperscaler", "neocloud", "three_year")


@dataclass(frozen=True)
class ApiPrice:
    """A list price in USD per million tokens: prompt found in the cache, prompt not found, output."""

    model: str
    offer: str
    cache_hit: float
    cache_miss: float
    output: float
    confidence: Confidence
    source: str
    first_day: str | None
    last_day: str | None


def rent(chip: str, terms: Terms = "neocloud") -> Quantity:
    """USD per chip and hour, in three markets; the catalog's single rent where it is the only one known.

    Raises:
        ValueError: unknown terms, or a chip that nobody rents out at a published price; the message gives
            the purchase prices that are known.
    """
    if terms not in TERMS:
        raise ValueError(f"rent: terms {terms!r} are unknown; choose one of {TERMS}")
    loaded, table = load_chip(chip), _document()["rents"]
    if loaded.key in table["usd_per_h"]:
        return Quantity(
            table["usd_per_h"][loaded.key][terms], "USD/h", f"{table['source']}, {terms}", table["kind"],
            table["confidence"],
        )  # fmt: skip
    if "rent_usd_per_h" in loaded.quantities:
        return loaded.quantity("rent_usd_per_h")
    bought = [f"{p['currency']} {p['price']:,} ({p['source']})" for p in purchases(loaded.key)]
    raise ValueError(
        f"rent: no rent of {loaded.key} is published; known purchases: {'; '.join(bought) or 'none'}; give a "
        f"rate of your own"
    )


def power_kw(chip: str) -> Quantity:
    """All-in kW of one chip, its share of cooling and network included.

    Raises:
        ValueError: not known for this chip.
    """
    key, document = load_chip(chip).key, _document()
    if key in document["powers"]["kw"]:
        entry = {**document["powers"], "kw": document["powers"]["kw"][key]}
    elif key in document["derived_powers"]:
        entry = document["derived_powers"][key]
    else:
        known = sorted((*document["powers"]["kw"], *document["derived_powers"]))
        raise ValueError(
            f"power_kw: the all-in power of {key} is not known; it is for {known}; give a value of "
            f"your own, above the chip's tdp_w"
        )
    return Quantity(entry["kw"], "kW", entry["source"], entry["kind"], entry["confidence"])


def purchases(chip: str) -> list[dict[str, Any]]:
    """Published purchase prices: {"chip", "price", "currency", "date", "kind", "confidence", "source"}."""
    key = load_chip(chip).key
    return [dict(entry) for entry in _document()["purchases"] if entry["chip"] == key]


def api_prices(model: str) -> list[ApiPrice]:
    """List prices of a model's API, in the order in which they were offered.

    Raises:
        ValueError: no price of that model; the message lists the closest.
    """
    entries = [entry for entry in _document()["api"] if entry["model"] == model]
    if not entries:
        models = list(dict.fromkeys(entry["model"] for entry in _document()["api"]))
        raise ValueError(unknown("api_prices: model", model, models))
    return [
        ApiPrice(
            model, e["offer"], e["cache_hit"], e["cache_miss"], e["output"], e["confidence"], e["source"],
            e["from"], e["until"],
        )
        for e in entries
    ]  # fmt: skip


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "prices.json").read_text(encoding="utf-8"))
    return document
