"""Collectives by alpha-beta with hierarchy: seconds = what a start costs + bytes / reached bandwidth.

A library holds two protocols: one for small messages, quick to start and slow to move, and one for large
ones; the faster of the two is taken. Over several tiers (node, network) each carries its share
while the others carry theirs, so the slowest counts, unless they share a chip's ports; the upper bound adds
all of them.

    all-gather, reduce-scatter    S · (p − 1) / p bytes on every link, p − 1 hops (3 log2 p in large groups)
    all-reduce                    twice that, or less where the switch adds (reduce_share above 1)
    all-reduce, direct            an engine's own kernel inside a node: one start, S · (p − 1) bytes
    all-to-all                    S · (p − 1) / p

Shapes: bytes and tokens may be arrays; times have their shape.
Source: data/chips/links.json for the constants; DeepEP README for the two expert-parallel schemes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from workbench.chips.topology import Link, Tier, Topology

Size = Any  # a number, or an array of numbers

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"]
KINDS: tuple[Kind, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send")


class Seconds(NamedTuple):
    """An expected time between two bounds."""

    lower: Size
    expected: Size
    upper: Size

    def plus(self, other: Seconds) -> Seconds:
        """One after the other."""
        return Seconds(self.lower + other.lower, self.expected + other.expected, self.upper + other.upper)

    def times(self, count: Size) -> Seconds:
        """`count` of them, one after the other."""
        return Seconds(self.lower * count, self.expected * count, self.upper * count)


NOTHING = Seconds(0.0, 0.0, 0.0)


def collective_time(
    kind: Kind, payload_bytes: Size, ranks: int, topology: Topology, *, direct: bool = False
) -> Seconds:
    """Seconds of one collective over `ranks` neighbouring chips.

    payload_bytes is what one rank ends with (all-reduce, all-gather), begins with (reduce-scatter,
    all-to-all), or hands on (send, over the outermost link that the group needs). With `direct` an
    all-reduce inside the innermost tier may use a serving engine's own kernel, which wins when small.
    Bounds: every constant of the links at its better end and tiers overlapped, or at its worse end and
    tiers one after the other.

    Raises:
        ValueError: an unknown kind, fewer than one rank, or more ranks than the topology joins.
    """
    if kind not in KINDS:
        raise ValueError(f"collective_time: kind {kind!r} is unknown; choose one of {KINDS}")
    if ranks < 1:
        raise ValueError(f"collective_time: ranks is {ranks}; a group has 1 or more; change it")
    if ranks == 1:
        nothing = payload_bytes * 0.0
        return Seconds(nothing, nothing, nothing)
    return Seconds(
        _collective(kind, payload_bytes, topology.at("fast").groups(ranks), direct, overlap=True),
        _collective(kind, payload_bytes, topology.groups(ranks), direct, overlap=True),
        _collective(kind, payload_bytes, topology.at("slow").groups(ranks), direct, overlap=False),
    )


def _collective(
    kind: Kind, payload_bytes: Size, groups: tuple[tuple[Tier, int], ...], direct: bool, overlap: bool
) -> Size:
    ranks = math.prod(members for _, members in groups)
    innermost = groups[0][0].link
    if kind == "send":
        outer = groups[-1][0].link
        return outer.launch_s.value + outer.hop_s.value + payload_bytes / _reached(outer, "send")
    passes = 2 if kind == "all_reduce" else 1
    hops = innermost.launch_s.value
    small: list[Size] = []
    large: list[Size] = []
    inside = 1
    for tier, members in groups:
        hops += passes * tier.link.hop_s.value * min(members - 1, 3 * math.log2(members))
        if kind == "all_to_all":
            # What leaves the inner group crosses this tier; the rest stays below it.
            moved = payload_bytes * (members - 1) * inside / ranks
        else:
            # Inner groups gather first, so a tier carries its share of the payload for each inner rank.
            moved = passes * payload_bytes * (members - 1) / members / inside
        _carry(small, moved / (tier.link.small_share.value * tier.link.bandwidth_byte_per_s), tier)
        _carry(large, moved / _reached(tier.link, kind), tier)
        inside *= members
    join = _largest if overlap else sum
    switch = max(tier.link.switch_s.value for tier, _ in groups)
    time = hops + np.minimum(join(small), switch + join(large))
    if direct and kind == "all_reduce" and len(groups) == 1:
        one_shot = payload_bytes * (ranks - 1) / (innermost.ring_share.value * innermost.bandwidth_byte_per_s)
        time = np.minimum(time, innermost.direct_s.value + one_shot)
    return time


def _carry(ports: list[Size], seconds: Size, tier: Tier) -> None:
    """What a tier carries, beside the others or behind the one whose ports it shares."""
    if tier.shares_ports and ports:
        ports[-1] = ports[-1] + seconds
    else:
        ports.append(seconds)


def _largest(times: list[Size]) -> Size:
    slowest = times[0]
    for time in times[1:]:
        slowest = np.maximum(slowest, time)
    return slowest


def _reached(link: Link, kind: Kind) -> float:
    share = {
        "all_reduce": link.reduce_share,
        "all_to_all": link.all_to_all_share,
        "all_gather": link.ring_share,
        "reduce_scatter": link.ring_share,
        "send": link.ring_share,
    }[kind]
    return share.value * link.bandwidth_byte_per_s


class ExpertTraffic(NamedTuple):
    """The two ways of a token: to its experts and back."""

    dispatch: Seconds
    combine: Seconds


def expert_time(
    tokens: Size,
    hidden_size: int,
    topk: int,
    ranks: int,
    topology: Topology,
    *,
    dispatch_bytes: float = 1.0,
    combine_bytes: float = 2.0,
    scale_bytes: float = 4 / 128,
    copies: Literal["per expert", "per node"] = "per expert",
    node_limit: int | None = None,
) -> ExpertTraffic:
    """Seconds to carry `tokens` of one rank to top-k experts spread evenly over `ranks`, and back.

    copies "per expert" is the low-latency scheme: a token travels once for every expert it chose, straight
    to the chip that holds it. "per node" is the high-throughput one: one copy crosses to each node that
    the token needs, and is handed on inside; `node_limit` caps the nodes (group-limited routing).
    dispatch_bytes and combine_bytes are bytes a channel on the wire, scale_bytes those of the scales.

    Raises:
        ValueError: fewer than one rank, an unknown scheme, or more ranks than the topology joins.
    Source: DeepEP README; V3 report (arXiv 2412.19437), section 3.2.2, for one copy a node.
    """
    if copies not in ("per expert", "per node") or ranks < 1:
        raise ValueError(
            f"expert_time: copies is {copies!r} and ranks {ranks}; copies must be 'per expert' or 'per node' "
            f"and ranks at least 1; change one"
        )
    if ranks == 1:
        nothing = tokens * 0.0
        zero = Seconds(nothing, nothing, nothing)
        return ExpertTraffic(zero, zero)
    dispatch, combine = _expert_ways(topk, ranks, topology, copies, node_limit)
    vector = tokens * hidden_size
    return ExpertTraffic(
        Seconds(*(start + vector * (dispatch_bytes + scale_bytes) * byte_s for start, byte_s in dispatch)),
        Seconds(*(start + vector * combine_bytes * byte_s for start, byte_s in combine)),
    )


Way = tuple[float, float]


@lru_cache(maxsize=256)
def _expert_ways(
    topk: int, ranks: int, topology: Topology, copies: str, node_limit: int | None
) -> tuple[tuple[Way, ...], tuple[Way, ...]]:
    """Dispatch and combine, each at its lower, expected and upper end: seconds of the start, and of a byte
    of a token's vector."""
    places = ((topology.at("fast"), True), (topology, True), (topology.at("slow"), False))
    there, back = (
        tuple(
            _expert_way(is_back, topk, place.groups(ranks), copies, node_limit, overlap)
            for place, overlap in places
        )
        for is_back in (False, True)
    )
    return there, back


def _expert_way(
    is_back: bool,
    topk: int,
    groups: tuple[tuple[Tier, int], ...],
    copies: str,
    node_limit: int | None,
    overlap: bool,
) -> Way:
    ranks = math.prod(members for _, members in groups)
    start, inside = 0.0, 1
    carried: list[Size] = []
    for depth, (tier, members) in enumerate(groups):
        link = tier.link
        start = max(start, link.expert_launch_s.value + link.expert_hop_s.value * math.log2(inside * members))
        if depth and copies == "per node":
            # Distinct outer groups among k draws, the own one free of charge.
            distinct = members * (1 - (1 - 1 / members) ** topk)
            sent = min(distinct, node_limit or members) * (members - 1) / members
        else:
            sent = topk * (members - 1) * inside / ranks
            if copies == "per node" and len(groups) > 1:
                # Forwarding inside serves the copies that came in as well as those that began here.
                sent = topk * (members - 1) / members
        share = link.combine_share.value if is_back else link.dispatch_share.value
        _carry(carried, sent / (share * link.bandwidth_byte_per_s), tier)
        inside *= members
    return start, float(max(carried) if overlap else sum(carried))
