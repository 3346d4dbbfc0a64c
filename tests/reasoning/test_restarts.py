"""Restarting favours short answers by the law in the text; resuming changes nothing."""

import random

import numpy as np
import pytest

from workbench.reasoning.restarts import interrupted, restarted_law

LENGTHS, LAW = np.array([2, 5, 20]), np.array([0.2, 0.3, 0.5])


def lengths_by(how: str, hazard: float, n: int = 6000) -> tuple[np.ndarray, float]:
    rng = random.Random(1)
    found = [
        interrupted(lambda: [0] * rng.choices(LENGTHS.tolist(), LAW)[0], hazard, rng, how) for _ in range(n)
    ]
    share = np.array([np.mean([len(answer) == length for answer, _ in found]) for length in LENGTHS])
    return share, float(np.mean([tokens for _, tokens in found]))


def test_restarting_leaves_the_law_of_the_text():
    share, tokens = lengths_by("restart", 0.08)
    np.testing.assert_allclose(share, restarted_law(LENGTHS, LAW, 0.08), atol=0.02)
    by_hand = [p * 0.92**n for n, p in zip(LENGTHS, LAW, strict=True)]
    np.testing.assert_allclose(restarted_law(LENGTHS, LAW, 0.08), np.array(by_hand) / sum(by_hand))
    assert share[2] < 0.3 and tokens > 12  # long answers lost, and more work than the 11.9 tokens needed


def test_resuming_leaves_the_law_as_it_is_and_wastes_nothing():
    share, tokens = lengths_by("resume", 0.08)
    np.testing.assert_allclose(share, LAW, atol=0.02)
    assert tokens == pytest.approx(float(LENGTHS @ LAW), rel=0.03)


def test_a_certain_interruption_is_refused():
    with pytest.raises(ValueError, match="needs a probability"):
        restarted_law(LENGTHS, LAW, 1.0)
    with pytest.raises(ValueError, match="needs a probability"):
        interrupted(lambda: [1], -0.1, random.Random(0), "restart")
