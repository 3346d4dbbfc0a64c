"""Collectives against published latencies, against the wire's own arithmetic, and at their edges."""

import math

import numpy as np
import pytest

from workbench.chips import load_cluster
from workbench.chips.collectives import KINDS, collective_time, expert_time
from workbench.chips.topology import Tier, Topology, link, topology_of


def flat(bandwidth=100e9, size=64, family="nvlink4"):
    return Topology((Tier("node", size, link(family, bandwidth)),))


def ring_all_gather(size_bytes, ranks, reached, hop_s, launch_s):
    """Step by step: each rank hands on the block it received last."""
    now = launch_s
    for _ in range(ranks - 1):
        now += hop_s + size_bytes / ranks / reached
    return now


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_large_all_gather_is_the_ring_walked_step_by_step(ranks):
    place = flat()
    wire = place.tiers[0].link
    size = 4e9
    expected = ring_all_gather(
        size, ranks, wire.ring_share.value * wire.bandwidth_byte_per_s, wire.hop_s.value,
        wire.launch_s.value + wire.switch_s.value,
    )  # fmt: skip
    assert float(collective_time("all_gather", size, ranks, place).expected) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize(
    ("ranks", "dispatch_us", "combine_us"),
    # deepseek-ai/DeepEP README: H800, 400 Gbit/s cards, 128 tokens, 7168 channels, top-8.
    [(8, 77, 114), (16, 118, 195), (32, 155, 273), (64, 173, 314), (128, 192, 369), (256, 194, 360)],
)
def test_expert_traffic_reproduces_the_published_low_latency_table(ranks, dispatch_us, combine_us):
    way = expert_time(128.0, 7168, 8, ranks, topology_of(load_cluster("h800", chips=256)))
    assert float(way.dispatch.expected) * 1e6 == pytest.approx(dispatch_us, rel=0.25)
    assert float(way.combine.expected) * 1e6 == pytest.approx(combine_us, rel=0.25)


def test_one_copy_a_node_sends_less_over_the_network_than_one_copy_an_expert():
    place = topology_of(load_cluster("h800", chips=64))
    many = expert_time(4096.0, 7168, 8, 64, place)
    few = expert_time(4096.0, 7168, 8, 64, place, copies="per node", node_limit=4)
    assert float(few.dispatch.expected) < 0.7 * float(many.dispatch.expected)


def test_traffic_to_experts_counts_only_what_leaves_the_rank():
    place = flat(size=64)
    wire = place.tiers[0].link
    tokens, hidden, topk, ranks = 10_000.0, 512, 3, 4
    sent = tokens * hidden * topk * (ranks - 1) / ranks * (1 + 4 / 128)
    start = wire.expert_launch_s.value + wire.expert_hop_s.value * math.log2(ranks)
    expected = start + sent / (wire.dispatch_share.value * wire.bandwidth_byte_per_s)
    found = expert_time(tokens, hidden, topk, ranks, place).dispatch.expected
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_the_expected_time_and_more_bytes_take_longer(kind):
    place = topology_of(load_cluster("h100", chips=64))
    sizes = np.geomspace(1e3, 1e9, 25)
    for ranks in (2, 8, 16, 64):
        time = collective_time(kind, sizes, ranks, place)
        assert (time.lower <= time.expected * (1 + 1e-12)).all()
        assert (time.expected <= time.upper * (1 + 1e-12)).all()
        assert (np.diff(time.expected) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_give_what_single_sizes_give(kind):
    place = topology_of(load_cluster("cloudmatrix384", chips=32))
    sizes = np.array([1e3, 3e5, 7e7])
    together = collective_time(kind, sizes, 32, place).expected
    alone = [float(collective_time(kind, size, 32, place).expected) for size in sizes]
    np.testing.assert_allclose(together, alone)


def test_a_group_of_one_sends_nothing():
    assert collective_time("all_reduce", 1e6, 1, flat()) == (0.0, 0.0, 0.0)
    assert expert_time(8.0, 64, 2, 1, flat()).combine == (0.0, 0.0, 0.0)


def test_an_engine_s_own_all_reduce_wins_when_small_and_not_when_large():
    place = topology_of(load_cluster("b200"))
    for size, is_faster in ((4096.0, True), (1e9, False)):
        own = float(collective_time("all_reduce", size, 8, place, direct=True).expected)
        library = float(collective_time("all_reduce", size, 8, place).expected)
        assert (own < library) is is_faster
    # Engines' kernels at 4 KB on eight B200: 5.8 us (aiconfigurator 0.12.0 database).
    small = collective_time("all_reduce", 4096.0, 8, place, direct=True)
    assert float(small.expected) == pytest.approx(5.8e-6, rel=0.15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: collective_time("gather", 1.0, 2, flat()), "kind 'gather' is unknown"),  # type: ignore[arg-type]
        (lambda: collective_time("send", 1.0, 0, flat()), "ranks is 0"),
        (lambda: collective_time("send", 1.0, 65, flat()), "65 ranks are more than the 64 devices"),
        (lambda: expert_time(1.0, 8, 1, 2, flat(), copies="twice"), "copies is 'twice'"),  # type: ignore[arg-type]
        (lambda: link("nvlink9", 1e9), "^link: family"),
        (lambda: link("nic", 0.0), "bandwidth_byte_per_s is 0.0"),
    ],
)
def test_bad_input_names_what_it_got_and_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_switches_above_one_set_of_ports_take_turns():
    tokens, wire = 4096.0, link("ub1", 100e9)

    def dispatch_s(shares):
        place = Topology((Tier("node", 8, wire), Tier("supernode", 64, wire, shares)))
        return float(expert_time(tokens, 7168, 8, 32, place).dispatch.expected)

    flat_s = float(expert_time(tokens, 7168, 8, 32, Topology((Tier("all", 64, wire),))).dispatch.expected)
    # What leaves a chip is the same whichever switch it takes; ports of their own would halve it or better.
    assert dispatch_s(True) == pytest.approx(flat_s, rel=0.01)
    assert dispatch_s(False) < 0.85 * flat_s


@pytest.mark.parametrize(
    ("system", "shares"), [("cloudmatrix384", [False, False, True, False]), ("h800", [False, False])]
)
def test_two_levels_of_switches_share_the_ports_and_a_network_card_does_not(system, shares):
    tiers = topology_of(load_cluster(system, chips=64)).tiers
    assert [tier.shares_ports for tier in tiers] == shares


def test_a_second_node_costs_more_than_the_first_ones_all_reduce():
    h100 = topology_of(load_cluster("h100", chips=64))
    one, two = (float(collective_time("all_reduce", 14336.0, n, h100).expected) for n in (8, 16))
    # Two crossings of the network and its library's start: 25 to 60 us where a node takes 15 to 25.
    assert 15e-6 < one < 25e-6 < two < 60e-6
