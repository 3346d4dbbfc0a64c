"""Pictures of a rating's uncertainty."""

import pytest

from workbench.plots.contest_rating import rating_error_figure, tries_figure


def test_the_interval_halves_with_four_times_the_contests():
    figure = rating_error_figure({"one": 100.0, "two": 50.0}, contests=14, printed_lead=154)
    one, two, printed = figure.data
    assert one.y[3] == pytest.approx(one.y[0] / 2) == pytest.approx(98.0)
    assert two.y[13] == pytest.approx(1.96 * 50 / 14**0.5)
    assert (printed.x, printed.y) == ((14,), (154,))
    assert "14" in figure.layout.xaxis.title.text and "points" in figure.layout.yaxis.title.text


def test_bars_are_percentages_in_the_order_given():
    rows = [dict(way="drawn", failures=f, chance=c) for f, c in ((0, 0.25), (1, 0.5), ("never", 0.25))]
    (bars,) = tries_figure(rows).data
    assert list(bars.x) == ["0", "1", "never"] and list(bars.y) == [25, 50, 25]
