"""How chips are joined: a link inside the node or rack, a slower one outside, and what each costs.

A `Link` is what one chip can send in one direction, with the constants that measurements leave beside
the data sheet: seconds before the first byte, seconds a hop, and the share of the bandwidth reached.
A `Topology` stacks them from the inside out: eight chips on NVLink, all others behind the network card.

Source: data/chips/links.json, where each constant has an interval and an origin.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from workbench.chips.catalog import unknown
from workbench.chips.clusters import Cluster

_FILE = Path(__file__).parents[1] / "data" / "chips" / "links.json"

# The words of a chip's data sheet, and the family whose constants hold for it. First match wins.
_FAMILIES = (
    ("nvlink 3", "nvlink3"),
    ("nvlink 4", "nvlink4"),
    ("nvlink", "nvlink5"),
    ("ub 1", "ub1"),
    ("ub", "ub2"),
    ("hccs", "hccs"),
    ("infinity fabric", "xgmi"),
    ("ualink", "xgmi"),
    ("mlu-link", "mlu-link"),
    ("ethernet", "nic"),
    ("connectx", "nic"),
    ("pcie4", "pcie4"),
    ("pcie", "pcie"),
)


@dataclass(frozen=True)
class Constant:
    """A number with its interval and its origin; `value` may be replaced to see what it moves."""

    value: float
    lower: float
    upper: float
    kind: str
    source: str


@dataclass(frozen=True)
class Link:
    """One chip's way to its neighbours: bandwidth in one direction, and the constants of its family.

    launch_s before anything moves, hop_s for each step of a ring; switch_s is the extra delay of the
    protocol for large messages, whose small brother reaches `small_share` of the bandwidth only;
    direct_s is an engine's own all-reduce kernel, which reads all neighbours at once.
    ring_share: all-gather and reduce-scatter; reduce_share: all-reduce, above 1 where the switch adds;
    expert_launch_s, expert_hop_s (for each doubling of the group), dispatch_share and combine_share: kernels
    that carry tokens to experts and back.
    """

    family: str
    bandwidth_byte_per_s: float
    direct_s: Constant
    launch_s: Constant
    hop_s: Constant
    switch_s: Constant
    small_share: Constant
    ring_share: Constant
    reduce_share: Constant
    all_to_all_share: Constant
    expert_launch_s: Constant
    expert_hop_s: Constant
    dispatch_share: Constant
    combine_share: Constant

    def at(self, end: str) -> Link:
        """This link with every constant at its "slow" or "fast" end."""
        if end not in ("slow", "fast"):
            raise ValueError(f"Link.at: end is {end!r}; it must be 'slow' or 'fast'; choose one")
        changes = {}
        for name in CONSTANTS:
            constant = getattr(self, name)
            is_high = (end == "slow") == name.endswith("_s")
            changes[name] = dataclasses.replace(constant, value=constant.upper if is_high else constant.lower)
        return dataclasses.replace(self, **changes)


CONSTANTS = tuple(field.name for field in dataclasses.fields(Link) if field.type == "Constant")


@dataclass(frozen=True)
class Tier:
    """`size` devices that reach each other over `link`, the smaller groups inside included.

    shares_ports: what crosses this tier leaves a chip through the ports of the tier inside (two levels of
    switches above one set of ports), so that the two take turns; else they carry side by side.
    """

    name: str
    size: float
    link: Link
    shares_ports: bool = False


@dataclass(frozen=True)
class Topology:
    """Tiers from the inside out; the last one reaches every device."""

    tiers: tuple[Tier, ...]

    @lru_cache(maxsize=64)  # noqa: B019 (a topology is a small frozen value, of which there are few)
    def at(self, end: str) -> Topology:
        """Every link at its slow or fast end."""
        return Topology(tuple(dataclasses.replace(tier, link=tier.link.at(end)) for tier in self.tiers))

    def groups(self, ranks: int) -> tuple[tuple[Tier, int], ...]:
        """How a group of `ranks` neighbouring devices spreads: (tier, members) from the inside out.

        Members of an outer tier are the inner groups, so the product is `ranks`. 16 ranks on nodes of
        eight are 8 inside a node and 2 nodes.

        Raises:
            ValueError: more ranks than the outermost tier joins.
        """
        found, inside = [], 1
        for tier in self.tiers:
            members = math.ceil(min(ranks, tier.size) / inside)
            if members > 1:
                found.append((tier, members))
                inside *= members
            if inside >= ranks:
                return tuple(found)
        widest = self.tiers[-1]
        raise ValueError(
            f"Topology.groups: {ranks} ranks are more than the {widest.size:g} devices that {widest.name!r} "
            f"joins; use fewer ranks, or add an outer tier"
        )


@lru_cache(maxsize=1)
def _constants() -> dict[str, dict[str, Constant]]:
    stored = json.loads(_FILE.read_text(encoding="utf-8"))
    sources = stored["_sources"]
    return {
        family: {
            name: Constant(value, lower, upper, kind, sources[key])
            for name, (value, lower, upper, kind, key) in entry.items()
        }
        for family, entry in stored.items()
        if not family.startswith("_")
    }


@lru_cache(maxsize=256)
def link(family: str, bandwidth_byte_per_s: float) -> Link:
    """A link of a known family at this bandwidth (one direction, one chip).

    Raises:
        ValueError: an unknown family (the message lists the closest), or no positive bandwidth.
    """
    if family not in _constants():
        raise ValueError(unknown("link: family", family, sorted(_constants())))
    if not bandwidth_byte_per_s > 0:
        raise ValueError(
            f"link: bandwidth_byte_per_s is {bandwidth_byte_per_s}; it must be above 0; give the data sheet's"
        )
    return Link(family, bandwidth_byte_per_s, **_constants()[family])


def family_of(words: str | None) -> str:
    """The family for a data sheet's name of a link ("NVLink 5", "UB 2.0, 18 x4 ports").

    An unnamed or unknown link counts as PCIe, the one that every card has.
    """
    lowered = (words or "").lower()
    return next((family for key, family in _FAMILIES if key in lowered), "pcie")


def topology_of(cluster: Cluster) -> Topology:
    """The tiers of a cluster as software sees them: in devices (a 910C counts two), bandwidth of each.

    A cluster of one chip without any link has no tier. Latencies are those of the link's family.

    Raises:
        ValueError: the bandwidth of a level is not known; the message says how to give one.
    """
    devices = int(cluster.chip.logical_devices)
    tiers = []
    for level in cluster.levels:
        if level.byte_per_s is None:
            raise ValueError(
                f"topology_of: {cluster.key}: the bandwidth of level {level.name!r} is not known; give one "
                f"with chip.replace(scaleup_byte_per_s=…)"
            )
        if level.name == "die":
            tiers.append(Tier("die", devices, link(family_of(cluster.chip.link), level.byte_per_s)))
            continue
        family = "nic" if level.name == "scale-out" else family_of(cluster.chip.link)
        size = math.inf if level.chips is None else level.chips * devices
        own = link(family, level.byte_per_s / devices)
        # A die's way to its twin and the network card are ports of their own.
        shares = bool(tiers) and tiers[-1].name != "die" and tiers[-1].link.family == family
        tiers.append(Tier(level.name, size, own, shares))
    return Topology(tuple(tiers))
