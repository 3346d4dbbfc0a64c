"""Ask a trained model for a picture or a video, in words or by sliders; see what a picture costs V4.1."""

from __future__ import annotations

import ipywidgets
import plotly.graph_objects as go
import torch

from workbench.media.asking import Wish, ask, frames_of, text_of
from workbench.media.data import DIRECTIONS, SPEEDS
from workbench.media.studio import Studio
from workbench.media.vision import picture_size
from workbench.plots.media import player_figure, shrinking_figure
from workbench.widgets.explorer import Explorer

NO_MOTION = "stands still"


def prompt_figure(studio: Studio, prompt: str, guidance: float, seed: int) -> go.Figure:
    """What the model makes of a prompt in its closed set of words: a picture, or a video that plays.

    Raises:
        ValueError: a word that it does not have, or an answer without a picture.
    """
    generator = torch.Generator().manual_seed(seed)
    [answer] = ask(studio, [prompt], guidance=guidance, generator=generator)
    frames = frames_of(studio, answer)
    if frames is None:
        raise ValueError(
            f"prompt_figure: {prompt!r} was answered in words: {text_of(studio, answer)!r}; needs 'draw' or "
            f"'film'; try 'draw a bold three'"
        )
    return player_figure(frames.numpy(), f"{prompt} (guidance {guidance:g}, seed {seed})")


def wish_figure(
    studio: Studio, digit: int, style: str, direction: str, speed: str, guidance: float, seed: int
) -> go.Figure:
    """The same by what is wished."""
    motion = None if direction == NO_MOTION else (direction, speed)
    return prompt_figure(studio, Wish(digit, style == "bold", motion).text, guidance, seed)


def prompt_explorer(studio: Studio, picture: str | None = None) -> Explorer:
    """A prompt box with guidance and seed."""
    text = ipywidgets.Text("film a bold three moving left slowly", continuous_update=False)
    text.layout.width = "520px"
    return Explorer(
        lambda **values: prompt_figure(studio, **values),
        {"prompt": text, **_dials()},
        picture=picture,
        title="Ask in words",
    )


def wish_explorer(studio: Studio, picture: str | None = None) -> Explorer:
    """Sliders for digit, style, direction, speed, guidance and seed."""
    select = ipywidgets.Dropdown
    controls = {
        "digit": ipywidgets.IntSlider(7, 0, 9, continuous_update=False),
        "style": select(options=["thin", "bold"], value="bold"),
        "direction": select(options=[NO_MOTION, *DIRECTIONS], value="right"),
        "speed": select(options=list(SPEEDS), value="quickly"),
        **_dials(),
    }
    return Explorer(
        lambda **values: wish_figure(studio, **values), controls, picture=picture, title="Ask by sliders"
    )


def _dials() -> dict[str, ipywidgets.Widget]:
    return {
        "guidance": ipywidgets.FloatSlider(1.75, min=0.0, max=5.0, step=0.25, continuous_update=False),
        "seed": ipywidgets.IntSlider(0, 0, 50, continuous_update=False),
    }


def size_figure(width: int, height: int, ratio: int) -> go.Figure:
    """Pixels, patches, tokens and cache entries of a picture under V4.1's vision path."""
    size = picture_size(width, height)
    rows, columns = size.patch_grid
    token_rows, token_columns = size.token_grid
    return shrinking_figure(
        [
            {"stage": "pixels", "count": width * height},
            {"stage": f"pixels as resized ({size.width} x {size.height})", "count": size.width * size.height},
            {"stage": "patches of 14 x 14", "count": rows * columns},
            {"stage": "visual tokens (3 x 3)", "count": token_rows * token_columns},
            {"stage": "tokens in the prompt", "count": size.n_tokens},
            {"stage": f"entries at ratio {ratio}", "count": size.entries(ratio)},
        ],
        f"A picture of {width} x {height} on its way into the cache",
    )


def size_explorer(picture: str | None = None) -> Explorer:
    """Sliders for the size of a picture and the compression ratio."""
    controls = {
        "width": ipywidgets.IntSlider(756, 100, 4000, 4),
        "height": ipywidgets.IntSlider(756, 100, 4000, 4),
        "ratio": ipywidgets.SelectionSlider(options=[1, 2, 4, 8, 128], value=4, description="entry ratio"),
    }
    return Explorer(size_figure, controls, picture=picture, title="What a picture costs")
