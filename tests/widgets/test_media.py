import pytest

from workbench.media.studio import Studio
from workbench.widgets import media

STUDIO = Studio.fresh(0)


def drawn(seed):
    return media.prompt_figure(STUDIO, "draw a bold three", 2.0, seed)


def test_the_seed_decides_what_is_drawn():
    figures, refused = {}, 0
    for seed in range(6):
        try:
            figures[seed] = drawn(seed).to_json()
        except ValueError:  # an untrained model may answer in words
            refused += 1
    assert len(figures) + refused == 6 and len(set(figures.values())) == len(figures) > 0
    assert all(drawn(seed).to_json() == figure for seed, figure in figures.items())
    assert all("draw a bold three" in figure for figure in figures.values())


def test_sliders_ask_what_words_ask(monkeypatch):
    asked = []
    monkeypatch.setattr(media, "prompt_figure", lambda studio, *values: asked.append(values))
    media.wish_figure(STUDIO, 7, "bold", "right", "quickly", 2.0, 3)
    media.wish_figure(STUDIO, 0, "thin", media.NO_MOTION, "slowly", 1.0, 0)
    assert asked == [("film a bold seven moving right quickly", 2.0, 3), ("draw a thin zero", 1.0, 0)]


def test_an_unknown_word_is_refused_by_name():
    with pytest.raises(ValueError, match="'unicorn'"):
        media.prompt_figure(STUDIO, "draw a unicorn", 1.0, 0)


def test_the_size_explorer_shows_the_published_arithmetic_and_follows():
    explorer = media.size_explorer()
    assert list(explorer.figure.data[0].y)[2:4] == [2916, 324] and explorer.figure.data[0].y[-1] == 81
    wide = media.size_figure(1920, 1080, 2)
    assert list(wide.data[0].y) == [1920 * 1080, 1708 * 966, 69 * 122, 23 * 41, 968, 23 * 41 // 2]


def test_both_explorers_open(monkeypatch):
    figure = media.size_figure(756, 756, 4)
    monkeypatch.setattr(media, "prompt_figure", lambda studio, *values, **named: figure)
    assert media.prompt_explorer(STUDIO).figure is figure
    assert media.wish_explorer(STUDIO).figure is figure
