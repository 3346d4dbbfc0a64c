"""Systems to compare, and the published points beside them."""

import pytest

from workbench.chips import Workload, predict
from workbench.chips.published import published
from workbench.chips.search import mappings
from workbench.chips.systems import load_system, systems, uneven_mappings
from workbench.config import load_config

FLASH = load_config("deepseek-v4-flash")
BY_ROW = {point.row: point for point in published()}


@pytest.mark.parametrize("key", systems())
def test_every_system_serves_flash_on_sixteen_chips(key):
    system = load_system(key)
    made = predict(
        FLASH, system.cluster(16), Workload(phase="decode", batch=4, context_tokens=8192),
        precision=system.precision, with_engine=system.engine,
    )  # fmt: skip
    assert made.fits and 1e-3 < made.step_s.expected < 0.3
    assert made.chips == 16 and system.cluster(16).chip.vendor.lower().startswith(system.vendor[:3])


def test_what_is_assumed_of_a_system_is_said():
    assert "assumed" in load_system("mlu590").note and "assumed" in load_system("mi355x").note
    assert load_system("mlu590").cluster(16).levels[0].byte_per_s == 100e9


def test_an_unknown_system_lists_the_closest():
    with pytest.raises(ValueError, match="cloudmatrix384"):
        load_system("cloudmatrix-384")


def test_only_spread_experts_are_uneven():
    plain, uneven = tuple(mappings(FLASH, 8)), uneven_mappings(FLASH, 8, 1.35)
    assert len(plain) == len(uneven)
    for one, other in zip(plain, uneven, strict=True):
        assert other.expert_imbalance == (1.35 if one.has_expert_traffic("decode") else 1.0)


def test_published_points_are_output_tokens_of_a_chip():
    # Rows whose throughput is users over time per token: 180 sequences of 16 chips at 16.46 ms, and the like.
    flash = BY_ROW["236"]
    assert flash.rate == pytest.approx(5830.65) and flash.interval_s == pytest.approx(16.46e-3)
    assert (flash.model, flash.chip, flash.draft_tokens) == ("deepseek-v4-flash", "ascend-950dt", 1)
    assert flash.rate * flash.interval_s == pytest.approx(1536 / 16, rel=0.01)
    # Input and output counted together, 8,192 and 1,024: a ninth is output.
    assert BY_ROW["56"].rate == pytest.approx(11055.6 / 9)
    # A whole cluster of 16 packages, 32 dies.
    assert "275" not in BY_ROW or BY_ROW["275"].rate == pytest.approx(15569.48 / 16)


def test_no_point_is_faster_than_its_users():
    for point in published():
        assert 0 < point.interval_s < 1 and 0 < point.rate < 3e4
        assert point.text and point.source
