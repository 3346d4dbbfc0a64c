"""Clusters: chips and the levels of links between them, each with bandwidth, latency and source."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.chips.catalog import FOLDER, Chip, chip_names, load_chip, slug, unknown
from workbench.chips.quantity import Quantity, read_quantity


@dataclass(frozen=True)
class Level:
    """One level of a topology.

    chips: how many are connected by it (None: no limit); "die" is the link between the devices of one
    package and is given per device, every other level per chip and direction. pair_byte_per_s: what two
    chips of a full mesh get between them. shape: "pair", "mesh", "switch", "torus" or "fabric".
    """

    name: str
    chips: int | None
    shape: str
    bandwidth: Quantity
    latency: Quantity
    pair_bandwidth: Quantity | None = None

    @property
    def byte_per_s(self) -> float | None:
        return self.bandwidth.value

    @property
    def latency_s(self) -> float | None:
        return self.latency.value


@dataclass(frozen=True)
class Cluster:
    """`chips` equal chips and the levels of links between them, from the closest to the farthest."""

    key: str
    name: str
    chip: Chip
    chips: int
    levels: tuple[Level, ...]
    power_kw: float | None = None

    @property
    def devices(self) -> int:
        """What software counts: two for each 910C."""
        return self.chips * int(self.chip.logical_devices)

    def level(self, chips: int) -> Level:
        """The closest level that connects so many chips.

        Raises:
            ValueError: none does.
        """
        for level in self.levels:
            if level.name != "die" and (level.chips is None or chips <= level.chips):
                return level
        largest = max(level.chips or 0 for level in self.levels)
        raise ValueError(f"Cluster.level: {chips} chips; {self.key} connects {largest} at most; use fewer")

    def replace(self, **changes: Any) -> Cluster:
        """A copy with some fields changed: another chip, more chips, other levels."""
        return dataclasses.replace(self, **changes)


def clusters() -> list[str]:
    """The systems of the data file; `load_cluster` takes the name of any chip with links besides."""
    return list(_document()["clusters"])


def load_cluster(name: str, chips: int | None = None, chip: Chip | None = None) -> Cluster:
    """A cluster by name, or as many of one chip as asked for: "cloudmatrix384", "h800".

    `chips` takes a part of a supernode, or several where it has a scale-out level; the default is the
    system's size (for a chip's name, one scale-up domain). `chip` puts another chip in its place, links
    unchanged.

    Raises:
        ValueError: no cluster or chip of that name, or more chips than the levels connect.
    """
    key = _names().get(slug(name))
    if key is None and slug(name) in chip_names():
        return _of_chip(chip or load_chip(name), chips)
    if key is None:
        raise ValueError(unknown("load_cluster: cluster", slug(name), (*clusters(), *chip_names())))
    entry = _document()["clusters"][key]
    levels = tuple(_level(level) for level in entry["levels"])
    system = Cluster(
        key, entry["name"], chip or load_chip(entry["chip"]), chips or entry["chips"], levels,
        entry.get("power_kw"),
    )  # fmt: skip
    system.level(system.chips)
    return system


def _of_chip(chip: Chip, count: int | None) -> Cluster:
    """The links that the chip's own entry gives: one scale-up domain, and a network between domains."""
    domain = int(chip.scaleup_chips) if chip.scaleup_chips else 1
    levels = []
    if domain > 1 and chip.scaleup_byte_per_s is not None:
        shape = "mesh" if chip.pair_byte_per_s or "mesh" in (chip.link or "") else "switch"
        shape = "torus" if "torus" in (chip.link or "") else shape
        levels.append(
            Level(
                "node" if domain <= 16 else "supernode", domain, shape,
                chip.quantity("scaleup_byte_per_s"), _latency(chip), chip.quantities.get("pair_byte_per_s"),
            )
        )  # fmt: skip
    if chip.scaleout_byte_per_s is not None:
        unknown_latency = Quantity(None, "s", "not published", "assumed", "C")
        levels.append(
            Level("scale-out", None, "fabric", chip.quantity("scaleout_byte_per_s"), unknown_latency)
        )
    system = Cluster(chip.key, f"{chip.name}, by its own links", chip, count or domain, tuple(levels))
    if system.chips > 1:
        if not levels:
            raise ValueError(
                f"load_cluster: {system.chips} × {chip.key}; no link of it is known; give one with "
                f"chip.replace(scaleup_byte_per_s=…, scaleup_chips=…)"
            )
        system.level(system.chips)
    return system


def _latency(chip: Chip) -> Quantity:
    return chip.quantities.get("scaleup_latency_s") or Quantity(None, "s", "not published", "assumed", "C")


def _level(entry: dict[str, Any]) -> Level:
    def quantity(name: str, unit: str) -> Quantity:
        value = {"value": entry[name], "kind": entry["kind"]}
        return read_quantity(
            value, unit, source=entry["source"], confidence=entry["confidence"], community_band=0
        )

    pair = quantity("pair_gb_per_s", "GB/s") if "pair_gb_per_s" in entry else None
    return Level(
        entry["name"],
        entry["chips"],
        entry["shape"],
        quantity("gb_per_s", "GB/s"),
        quantity("us", "us"),
        pair,
    )


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "clusters.json").read_text(encoding="utf-8"))
    return document


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    entries = _document()["clusters"].items()
    return {slug(name): key for key, entry in entries for name in (key, entry["name"], *entry["aliases"])}
