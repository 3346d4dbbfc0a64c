"""The explorer of Newton-Schulz says what its steps do."""

import time

import pytest

from workbench.widgets.optimiser import WAYS, newton_schulz_explorer, newton_schulz_figure


def last_values(figure, steps):
    return list(figure.data[steps].y)


def test_the_reports_steps_end_at_one_and_steep_ones_do_not():
    pinned, steep = list(WAYS)[:2]
    assert max(abs(v - 1) for v in last_values(newton_schulz_figure(3, "FP32", pinned), 10)) < 1e-3
    assert max(abs(v - 1) for v in last_values(newton_schulz_figure(3, "FP32", steep), 10)) > 0.05


def test_bf16_is_further_off():
    off = [
        max(abs(v - 1) for v in last_values(newton_schulz_figure(2, dtype, next(iter(WAYS))), 10))
        for dtype in ("FP32", "BF16")
    ]
    assert off[0] < off[1] < 1e-2


def test_the_explorer_follows_its_controls_quickly():
    explorer = newton_schulz_explorer()
    before = explorer.figure.layout.title.text
    begun = time.perf_counter()
    explorer._controls["dtype"].value = "BF16"
    assert time.perf_counter() - begun < 2
    assert explorer.figure.layout.title.text != before


def test_a_spread_too_wide_does_not_arrive():
    values = last_values(newton_schulz_figure(6, "FP32", next(iter(WAYS))), 10)
    assert min(values) < 0.9 and max(values) == pytest.approx(1, abs=1e-2)
