import pytest
import torch

from workbench.media.data import load_split
from workbench.media.looking import looks
from workbench.media.studio import Studio

STUDIO = Studio.fresh(0)
CODES = STUDIO.tokenizer.encode(load_split().test.pixels[:1, None])[0]


def test_every_word_has_its_look_and_shares_are_shares():
    found = looks(STUDIO, CODES, "a bold three")
    assert [look.word for look in found] == ["a", "bold", "three"]
    for look in found:
        assert look.window.shape == (4, 4) and look.entries.shape == (4,)
        assert 0 < look.on_picture < 1 and look.on_rest == pytest.approx(1 - look.on_picture)


def test_what_the_sinks_take_the_picture_does_not_get():
    studio = Studio.fresh(0)
    for layer in studio.model.model.layers:
        with torch.no_grad():
            layer.self_attn.sinks.fill_(30.0)
    assert all(look.on_picture < 1e-6 for look in looks(studio, CODES, "a bold three"))


def test_pictures_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="8 x 8"):
        looks(STUDIO, torch.zeros(1, 6, 6, dtype=torch.long), "a")
