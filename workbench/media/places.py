"""Where in its picture or video every code of a sequence lies, read off the sequence itself.

Axes: b rows, s tokens. Places are (frame, row, column) of the latent grid.
"""

import torch
from torch import Tensor

from workbench.media.vocabulary import Vocabulary


def code_places(ids: Tensor, vocabulary: Vocabulary) -> Tensor:
    """(frame, row, column) of each code, -1 at other tokens: (b, s) -> (b, s, 3).

    A row may hold several documents: every code belongs to the last marker before it.

    Raises:
        ValueError: a code with no header before it in its row: what came before is missing.
    """
    position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    is_code = ids >= vocabulary.first_code
    is_video = ids == vocabulary.bov
    is_begin = is_video | (ids == vocabulary.boi)
    begin = torch.where(is_begin, position, -1).cummax(dim=1).values
    if bool((is_code & (begin < 0)).any()):
        raise ValueError(
            f"code_places: got rows of {ids.shape[1]} tokens with a code before any <boi> or <bov>; needs "
            f"the whole past of every code; in cached decoding say it by MediaEmbedding.reading"
        )
    begin = begin.clamp(min=0)
    in_video = is_video.gather(1, begin)
    # Sizes are the two (picture) or three (video) tokens after the marker; rows then columns come last.
    last = begin + 2 + in_video.long()
    y, x = (
        (ids.gather(1, (last - back).clamp(max=ids.shape[1] - 1)) - vocabulary.first_size + 1).clamp(min=1)
        for back in (1, 0)
    )
    before = is_code.long().cumsum(dim=1) - is_code.long()
    index = before - before.gather(1, begin)
    places = torch.stack([index // (y * x), index // x % y, index % x], dim=-1)
    return places.masked_fill(~is_code[..., None], -1)
