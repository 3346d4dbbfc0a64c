"""Which sweeps drafted, told by the runs that a table lists twice, and what that makes of its points."""

import pytest

from workbench.chips.command import DATA
from workbench.chips.validation.judge import current_engines
from workbench.chips.validation.rows import read_table
from workbench.chips.validation.serving_table import NEEDED, point_result, serving_points
from workbench.chips.validation.sweeps import PLAIN, drafting, drafts_in, sweep_of
from workbench.chips.validation.text import Drafts

RUN = dict(
    system="b200_sxm", backend="trtllm", precision="fp8", mode="agg", isl="1024", osl="1024", tp_size="8"
)


def run(day, version, users, **changes):
    return RUN | dict(measured=day, backend_version=version, concurrency=users) | changes


def test_the_faster_of_two_sweeps_of_one_version_drafted():
    rows = [
        (run("01", "1.2.0rc6.post2", "4"), 10.0), (run("02", "1.2.0rc6.post3", "4"), 5.0),
        (run("02", "1.2.0rc6.post3", "64"), 14.0),
    ]  # fmt: skip
    drafted = drafting(rows)
    assert drafted == {sweep_of(rows[0][0]): False, sweep_of(rows[1][0]): True}
    # A run of the same sweep that nothing else repeats has drafts too: three, or one with DP attention.
    assert drafts_in(rows[2][0], drafted) == Drafts(3, None, "mtp")
    assert drafts_in(rows[2][0] | {"attention_dp_size": "8.0"}, drafted) == Drafts(1, None, "mtp")
    assert drafts_in(rows[0][0], drafted) == PLAIN


@pytest.mark.parametrize(
    "rows",
    [
        # Another version may be faster of itself.
        [(run("01", "1.1.0rc2", "4"), 10.0), (run("02", "1.2.0rc6", "4"), 5.0)],
        # A tenth is no sign of drafts.
        [(run("01", "1.2.0rc6", "4"), 10.0), (run("02", "1.2.0rc6", "4"), 9.0)],
        # Pools of their own are tuned one by one.
        [(run("01", "1", "4", mode="disagg"), 10.0), (run("02", "1", "4", mode="disagg"), 5.0)],
        [(run("", "1", "4"), 10.0), (run("", "1", "4"), 5.0)],
    ],
)
def test_what_else_may_be_the_cause_decides_nothing(rows):
    assert drafting(rows) == {}
    assert drafts_in(rows[0][0], {}) is None


def test_a_sweep_between_two_others_stays_undecided():
    times = {"01": 20.0, "02": 10.0, "03": 5.0}
    drafted = drafting([(run(day, "1", "4"), ms) for day, ms in times.items()])
    assert set(drafted.values()) == {True, False} and len(drafted) == 2
    assert sweep_of(run("02", "1", "4")) not in drafted


def test_points_of_both_kinds_are_predicted_with_their_own_drafts():
    points = serving_points(read_table(DATA / "silicon_deepseek.csv", NEEDED))
    with_drafts = [p for p in points if p.drafts.count and not p.reason]
    assert len(with_drafts) > 60
    stacks = current_engines()
    for point in with_drafts[:: len(with_drafts) // 4]:
        plain = type(point)(point.number, point.row, point.layouts)
        assert point_result(point, stacks).predicted < point_result(plain, stacks).predicted


def test_the_measured_time_moves_no_prediction_but_through_the_sweep(tmp_path):
    rows = read_table(DATA / "silicon_deepseek.csv", NEEDED)
    chosen = [r for r in rows if r["backend"] == "sglang" and r["mode"] == "agg"][:3]
    stacks = current_engines()
    before = [point_result(p, stacks).predicted for p in serving_points(chosen)]
    slower = [r | {"tpot_ms": str(7 * float(r["tpot_ms"]))} for r in chosen]
    assert [point_result(p, stacks).predicted for p in serving_points(slower)] == before
    assert all(before)
