"""Export rules against what was published for real chips, and against a chip made for the purpose."""

import datetime

import pytest

from workbench.chips import (
    chips,
    load_chip,
    performance_density,
    standing,
    standings,
    total_processing_power,
)

# TPP as published or worked out by others from data sheets.
PUBLISHED = {
    "h20": 2368, "a100": 4992, "h100": 15832, "h800": 15832, "h200": 15832, "mi300x": 20920, "mi325x": 20920,
    "b200": 36000, "gb300": 60000, "mi355x": 40264, "l40s": 5864, "rtx-5090": 6704, "ascend-950dt": 7784,
    "ascend-910c": 12032, "ascend-910b2": 6016, "tpu-v7": 36912, "mlu590": 5024,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_processing_power_is_the_published_one(name):
    assert total_processing_power(load_chip(name)) == pytest.approx(PUBLISHED[name], rel=1e-3)


@pytest.mark.parametrize("name", chips())
def test_processing_power_is_what_the_catalog_lists(name):
    chip = load_chip(name)
    if chip.tpp is not None:
        assert total_processing_power(chip) == pytest.approx(chip.tpp, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "density"), [("h20", 2.91), ("a100", 6.04), ("l40s", 9.64), ("mi300x", 20.57), ("mi250x", 4.23)]
)
def test_performance_density_is_the_published_one(name, density):
    assert performance_density(load_chip(name)) == pytest.approx(density, abs=0.01)


@pytest.mark.parametrize(
    ("name", "date", "outcome"),
    [
        ("a100", "2022-10-06", "free"), ("a100", "2022-10-07", "denied"),
        # Made for the rule of 2022, caught by that of 2023.
        ("h800", "2023-11-16", "free"), ("h800", "2023-11-17", "denied"),
        ("l40s", "2023-06-01", "free"), ("l40s", "2023-12-01", "denied"),
        # Made for the rule of 2023, caught by a letter.
        ("h20", "2025-04-08", "free"), ("h20", "2025-04-09", "licence"),
        ("h20", "2026-02-01", "case by case"),
        ("h200", "2026-01-14", "denied"), ("h200", "2026-01-15", "case by case"),
        ("mi300x", "2026-01-15", "case by case"), ("mi325x", "2026-01-15", "case by case"),
        ("b200", "2026-01-15", "denied"), ("mi355x", "2026-01-15", "denied"),
        ("gb300", "2026-11-23", "denied"),
        ("ascend-910c", "2025-01-01", "not under US rules"), ("ascend-910c", "2025-05-13", "use warned of"),
        ("ascend-950dt", "2026-11-23", "not under US rules"), ("mlu590", "2026-11-23", "not under US rules"),
        ("epyc-9755", "2026-11-23", "free"),
        # The area of its dies is not known, and decides.
        ("gb10", "2024-01-01", "open"),
    ],
)  # fmt: skip
def test_the_rules_of_a_day_say_what_happened(name, date, outcome):
    assert standing(load_chip(name), date).outcome == outcome


@pytest.mark.parametrize(
    ("tpp", "mm2", "outcome"),
    [
        (4800, 5000, "denied"),  # TPP alone
        (4799, 5000, "free"),  # performance density below 1.6
        (4799, 2900, "notice"),  # between 1.6 and 5.92
        (1600, 270, "denied"),  # 5.93
        (1600, 271, "notice"),  # 5.904
        (1600, 501, "free"),  # 3.19
        (2399, 814, "free"),  # the H20's corner
        (2400, 814, "notice"),
    ],
)
def test_a_custom_chip_meets_the_lines_of_2023_where_they_are_drawn(tpp, mm2, outcome):
    formats = {name: None for name in load_chip("h20").peak_flop_per_s if not name.startswith("vector")}
    chip = load_chip("h20").replace(**{**formats, "fp8": tpp * 1e12 / 8}, die_mm2=mm2)
    found = standing(chip, "2024-06-01")
    assert found.tpp == pytest.approx(tpp) and found.outcome == outcome


def test_a_faster_memory_loses_the_licence_of_2026():
    chip = load_chip("h200")
    assert standing(chip.replace(memory_byte_per_s=6.4e12), "2026-06-01").outcome == "case by case"
    assert standing(chip.replace(memory_byte_per_s=6.5e12), "2026-06-01").outcome == "denied"


def test_findings_name_the_rules_and_their_sources():
    found = {f.rule: f for f in standing(load_chip("h20"), datetime.date(2026, 11, 23)).findings}
    assert found["letters to NVIDIA and AMD"].applies and found["91 FR 1684"].applies
    assert found["3A090.a"].applies is False and found["3A090.b"].applies is False
    assert "3A090 of 2022" not in found
    assert all(f.source and f.text and f.confidence in "ABC" for f in found.values())


def test_the_panel_has_a_row_a_chip():
    rows = standings([load_chip(name) for name in chips()], "2026-11-23")
    assert len(rows) == 59
    h100 = next(row for row in rows if row["chip"] == "h100")
    assert h100["outcome"] == "case by case" and h100["rules"] == ["3A090.a", "91 FR 1684"]


def test_a_day_is_a_day():
    with pytest.raises(ValueError, match=r"standing: date 'May 2025' is no day; .* write for example"):
        standing(load_chip("h20"), "May 2025")
