"""Schedules at the points where they bend."""

import pytest

from workbench.training.schedules import BatchRamp, LearningRate


def test_learning_rate_of_pro():
    rate = LearningRate(peak=2.0e-4, final=2.0e-5, warmup_steps=2000, decay_steps=50_000, total_steps=350_000)
    assert rate(0) == pytest.approx(1e-7)
    assert rate(999) == pytest.approx(1e-4)
    assert rate(1999) == rate(2000) == rate(299_999) == 2.0e-4
    assert rate(300_000 + 24_999) == pytest.approx(1.1e-4)  # half way
    assert rate(349_999) == pytest.approx(2.0e-5)
    assert rate(400_000) == pytest.approx(2.0e-5)
    falls = [rate(step) for step in range(300_000, 350_000, 500)]
    assert falls == sorted(falls, reverse=True)


def test_mtp_weight_falls_with_the_decay():
    rate = LearningRate(1.0, 0.1, warmup_steps=2, decay_steps=3, total_steps=10)
    assert [rate.mtp_weight(step) for step in (0, 6, 7, 9)] == [0.3, 0.3, 0.1, 0.1]


def test_batch_ramp():
    ramp = BatchRamp(first=4, largest=12, ramp_steps=8)
    assert [ramp(step) for step in (0, 1, 4, 7, 8, 100)] == [4, 5, 8, 11, 12, 12]
    assert BatchRamp(5, 5, 0)(0) == 5


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^LearningRate: got warmup_steps=6 and decay_steps=5"):
        LearningRate(1.0, 0.1, warmup_steps=6, decay_steps=5, total_steps=10)
    for peak, final in ((0.0, 0.0), (-1.0, 0.1), (1.0, -0.1), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match=r"^LearningRate: got peak="):
            LearningRate(peak, final, warmup_steps=0, decay_steps=0, total_steps=10)
    with pytest.raises(ValueError, match=r"^BatchRamp: got first=9, largest=4"):
        BatchRamp(9, 4, 3)
