"""A figure that follows a run, watched through what it sends to the page."""

import pytest

from tests.training.small_run import make
from workbench.plots.training import run_figure
from workbench.training.loop import train
from workbench.widgets import live as module
from workbench.widgets.explorer import PLOTLY
from workbench.widgets.live import live


@pytest.fixture
def page(monkeypatch):
    """Every state that the one output has had."""
    states = []

    class Handle:
        def update(self, data, raw):
            assert raw
            states.append(data)

    def display(data, raw, display_id):
        assert raw and display_id and not states, "one output, then updates of it"
        states.append(data)
        return Handle()

    monkeypatch.setattr(module, "display", display)
    return states


def test_every_row_comes_back_and_the_last_figure_has_them_all(page):
    rows = live(train(*make(5)), every_s=0)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [len(state[PLOTLY]["data"][0]["x"]) for state in page] == [1, 2, 3, 4, 5, 5]
    assert page[-1][PLOTLY]["data"][0]["y"] == [row["loss"] for row in rows]


def test_a_quick_run_is_drawn_at_its_begin_and_end_only(page):
    live(train(*make(5)), every_s=60)
    assert [len(state[PLOTLY]["data"][0]["x"]) for state in page] == [1, 5]


def test_a_run_that_fails_shows_how_far_it_came(page):
    def failing():
        yield from (
            {"step": i, "tokens": 9 * i, "loss": 1.0, "grad_norm": 1.0, "tokens_per_s": 1.0} for i in (1, 2)
        )
        raise FloatingPointError("loss is nan")

    with pytest.raises(FloatingPointError, match="nan"):
        live(failing(), every_s=60)
    assert len(page[-1][PLOTLY]["data"][0]["x"]) == 2


def test_a_run_without_rows_draws_nothing(page):
    assert live([]) == []
    assert not page


def test_every_axis_of_a_run_has_its_unit():
    figure = run_figure(list(train(*make(3))))
    titles = [figure.layout[f"yaxis{n}"].title.text for n in ("", "2", "3")]
    assert titles == ["loss (nats a token)", "gradient norm", "speed (tokens a second)"]
