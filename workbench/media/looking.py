"""Where each word of a caption looks in the picture that it is about.

Axes: y and x places of the latent grid.
"""

from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor

from workbench.media.studio import Studio
from workbench.model.instruments import observe


@dataclass(frozen=True)
class Look:
    """One word, and the attention that chose it, as shares of 1.

    Shapes: window (y, x), to single codes; entries (y,), to cache entries that hold a row of four codes each,
    in CSA layers; both are means over heads and over the layers that have them. on_picture is the share of
    single codes and entries together, on_rest what words, markers and sink got.
    """

    word: str
    window: Tensor
    entries: Tensor
    on_picture: float

    @property
    def on_rest(self) -> float:
        return 1 - self.on_picture


def looks(studio: Studio, codes: Tensor, words: str) -> list[Look]:
    """The looks of "this is" and the words after it, at a picture whose rows are four codes: (1, y, 4).

    Raises:
        ValueError: rows of another length, which cache entries would not match.
    """
    if codes.shape[0] != 1 or codes.shape[2] != 4:
        raise ValueError(
            f"looks: got codes {tuple(codes.shape)}; needs a picture (1, y, 4), so that a CSA entry of four "
            f"codes is a row; take an 8 x 8 picture"
        )
    v = studio.vocabulary
    span = v.span(codes, False, at=1)
    said = v.words(f"this is {words}")
    ids = [v.bos, *span, *said]
    first = next(i for i, token in enumerate(ids) if token >= v.first_code)
    n, n_rows = codes.numel(), codes.shape[1]
    attention = [layer.attention for layer in observe(studio.model, torch.tensor([ids])).layers.values()]
    window = torch.stack([layer.window[0].mean(dim=0) for layer in attention])[:, :, first : first + n]
    sparse = [layer.entries[0].mean(dim=0) for layer in attention if layer.entries is not None]
    rows = torch.stack(sparse)[:, :, first // 4 : first // 4 + n_rows]
    found = []
    for place in range(len(ids) - len(said) + 2, len(ids)):
        asking = place - 1  # the token before a word chooses it
        in_entries = rows[:, asking].sum() / len(attention)
        found.append(
            Look(
                v.name(ids[place]),
                window[:, asking].mean(dim=0).view(codes.shape[1:]),
                reduce(rows[:, asking], "layer y -> y", "mean"),
                float(window[:, asking].sum() / len(attention) + in_entries),
            )
        )
    return found
