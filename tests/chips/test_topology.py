"""Tiers of published systems, as software counts them, and how groups of ranks spread over them."""

import math

import pytest

from workbench.chips import load_chip, load_cluster
from workbench.chips.topology import CONSTANTS, family_of, link, topology_of


def test_a_node_of_eight_and_a_network():
    place = topology_of(load_cluster("h800", chips=16))
    assert [(t.size, t.link.family, t.link.bandwidth_byte_per_s) for t in place.tiers] == [
        (8, "nvlink4", 200e9), (math.inf, "nic", 50e9),
    ]  # fmt: skip
    assert [(tier.name, n) for tier, n in place.groups(16)] == [("node", 8), ("scale-out", 2)]


def test_a_package_of_two_devices_is_a_tier_of_its_own():
    place = topology_of(load_cluster("cloudmatrix384"))
    assert [(t.name, t.size) for t in place.tiers[:3]] == [("die", 2), ("node", 16), ("supernode", 768)]
    # 392 GB/s a package is 196 GB/s for each die.
    assert place.tiers[1].link.bandwidth_byte_per_s == 196e9
    assert math.prod(n for _, n in place.groups(320)) >= 320


def test_members_of_all_tiers_multiply_to_the_ranks():
    for name, ranks in (
        ("h100", 64),
        ("gb200-nvl72", 32),
        ("cloudmatrix384", 128),
        ("atlas-950-superpod", 64),
    ):
        groups = topology_of(load_cluster(name, chips=128 if name == "h100" else None)).groups(ranks)
        assert math.prod(n for _, n in groups) == ranks


@pytest.mark.parametrize("end", ["slow", "fast"])
def test_ends_move_every_constant_the_same_way(end):
    wire = link("nvlink5", 900e9)
    for name in CONSTANTS:
        change = getattr(wire.at(end), name).value - getattr(wire, name).value
        is_slower = change >= 0 if name.endswith("_s") else change <= 0
        assert change == 0 or is_slower is (end == "slow")
    with pytest.raises(ValueError, match="'slow' or 'fast'"):
        wire.at("middle")


def test_every_constant_lies_in_its_interval_and_says_where_it_comes_from():
    for family in (
        "nvlink3",
        "nvlink4",
        "nvlink5",
        "pcie",
        "pcie4",
        "nic",
        "hccs",
        "ub1",
        "ub2",
        "xgmi",
        "mlu-link",
    ):
        wire = link(family, 1e9)
        for name in CONSTANTS:
            constant = getattr(wire, name)
            assert constant.lower <= constant.value <= constant.upper, (family, name)
            assert constant.kind in ("measured", "published", "assumed") and len(constant.source) > 20


@pytest.mark.parametrize(
    ("words", "family"),
    [("NVLink 4", "nvlink4"), ("UB 2.0, 18 x4 ports", "ub2"), ("UB 1.0", "ub1"), ("MLU-Link", "mlu-link"),
     ("Infinity Fabric 5 mesh", "xgmi"), ("HCCS full mesh", "hccs"), (None, "pcie"), ("PCIe4", "pcie4")],
)  # fmt: skip
def test_a_data_sheet_s_words_find_their_family(words, family):
    assert family_of(words) == family


def test_a_custom_chip_brings_its_own_links():
    chip = load_chip("h100").replace(scaleup_byte_per_s=1e12)
    tiers = topology_of(load_cluster(chip.key.removesuffix("-custom"), chips=8, chip=chip)).tiers
    assert tiers[0].link.bandwidth_byte_per_s == 1e12
