"""Fault data: published arithmetic is redone, every value lies in its band, and days follow the bands."""

import pytest

from workbench.chips import Mapping
from workbench.chips.runs import difficulties, fault_quantities, goodput, hardness_rows, load_faults
from workbench.chips.runs.hardness import days_of
from workbench.chips.training_step import Recipe
from workbench.config import load_config

FLASH = load_config("deepseek-v4-flash")
SETTING = (FLASH, Mapping(dp=64, pp=4, ep=64), Recipe(4096, 4096), 1e12, 256)


def test_llama_3_s_interruptions_are_the_rate():
    rate = fault_quantities("h100-16k")["faults_per_chip_hour"]
    assert rate.value == pytest.approx(419 / (54 * 24 * 16384), rel=1e-3)
    assert rate.lower == pytest.approx(2.34 / (1000 * 24 * 8), rel=1e-2)
    assert rate.upper == pytest.approx(6.5 / (1000 * 24 * 8), rel=1e-2)
    # A fault every 3.1 hours, and above 90% of the time effective, as Meta states.
    faults = load_faults("h100-16k")
    assert faults.between_s(16384) / 3600 == pytest.approx(3.1, rel=0.01)
    assert goodput(faults.replace(spread=0.0), 16384) > 0.9


def test_huawei_s_statement_spans_the_band():
    rate = fault_quantities("ascend-910c")["faults_per_chip_hour"]
    assert rate.lower == pytest.approx(1 / (24 * 10_000), rel=0.01)
    assert rate.upper == pytest.approx(1 / (24 * 384), rel=0.01)
    assert rate.value == pytest.approx((rate.lower * rate.upper) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", ["h100-16k", "ascend-910c"])
def test_every_value_has_a_source_and_lies_in_its_band(name):
    for quantity in fault_quantities(name).values():
        assert quantity.lower < quantity.value < quantity.upper
        assert quantity.source and quantity.kind in ("published", "derived", "assumed")
        assert quantity.confidence in "ABC"


def test_the_hard_end_takes_longer_than_the_easy_one():
    rows = hardness_rows(*SETTING)
    assert {row["parameter"] for row in rows} == {d.name for d in difficulties()}
    assert all(row["easy"] <= row["base"] <= row["hard"] and row["easy"] < row["hard"] for row in rows)
    widths = [row["hard"] - row["easy"] for row in rows]
    assert widths == sorted(widths, reverse=True)


def test_days_are_hours_over_goodput():
    found = days_of(*SETTING)
    assert found["days"] == pytest.approx(found["steps_days"] / found["goodput"])
    slower = days_of(*SETTING, slowdown=1.59)
    assert slower["goodput"] == found["goodput"] and slower["steps_days"] > 1.2 * found["steps_days"]
    assert days_of(*SETTING, restart_s="upper")["steps_days"] == found["steps_days"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fault_quantities("h100"), "fault_quantities: cluster 'h100'"),
        (lambda: load_faults("h100-16k", {"rate": "lower"}), "load_faults: got 'rate' at 'lower'"),
        (lambda: load_faults("h100-16k", {"spread": "best"}), "load_faults: got 'spread' at 'best'"),
        (lambda: days_of(*SETTING, luck=1.0), r"days_of: got \['luck'\]"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
