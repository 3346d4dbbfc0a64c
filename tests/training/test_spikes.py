"""The spike rule against its sentence, written with sorted lists."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.training.spikes import SpikeDetector, SpikeRule


def median(values):
    values, n = sorted(values), len(values)
    return (values[(n - 1) // 2] + values[n // 2]) / 2


@given(
    st.lists(st.floats(0, 12, width=32), min_size=1, max_size=25),
    st.integers(3, 8),
    st.floats(0, 5),
    st.floats(0, 2),
)
def test_matches_the_sentence(losses, window, threshold, least_rise):
    detector = SpikeDetector(SpikeRule(window, threshold, least_rise))
    for i, loss in enumerate(losses):
        before = losses[max(i - window, 0) : i]
        expected = None if i < window else loss - median(before)
        noted = detector.note(loss)
        if expected is None:
            assert noted is False
            continue
        spread = 1.4826 * median([abs(x - median(before)) for x in before])
        limit = max(threshold * spread, least_rise)
        if abs(expected - limit) > 1e-9:  # rounding decides a tie
            assert noted == (expected > limit)


def test_memory_moves_on_with_its_state():
    losses = [3.0, 2.9, 3.1, 3.0, 2.8, 9.0, 3.0]
    rule = SpikeRule(window=4)
    whole, first, second = (SpikeDetector(rule) for _ in range(3))
    expected = [whole.note(loss) for loss in losses]
    noted = [first.note(loss) for loss in losses[:5]]
    second.note(100.0)
    second.load_state_dict(first.state_dict())
    assert noted + [second.note(loss) for loss in losses[5:]] == expected == [False] * 5 + [True, False]
    second.load_state_dict({})
    assert not any(second.note(loss) for loss in losses[2:6])


def test_not_a_number_and_infinity():
    detector = SpikeDetector(SpikeRule(window=3))
    assert [detector.note(loss) for loss in (1.0, 1.0, 1.0, float("inf"))] == [False, False, False, True]
    assert SpikeRule(window=3).limit(torch.ones(3)) == pytest.approx(1.1)


def test_rules_that_judge_nothing_are_refused():
    for values in (dict(window=2), dict(threshold=-1.0), dict(least_rise=-0.1)):
        with pytest.raises(ValueError, match=r"^SpikeRule: got window=.*; correct the one outside"):
            SpikeRule(**values)
