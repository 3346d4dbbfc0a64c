"""Asking the model for pictures, videos and words, and getting them as pixels and text.

Axes: b requests, t frames, y and x pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.media.generate import Request, stream, write
from workbench.media.grammar import Grammar
from workbench.media.studio import Studio
from workbench.media.tasks import name_words
from workbench.model.sampling import GREEDY

BATCH = 100  # requests answered side by side


@dataclass(frozen=True)
class Wish:
    """What to draw or film: a digit in a style and, for a video, a direction and a speed."""

    digit: int
    is_bold: bool
    motion: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        name = name_words(self.digit, self.is_bold)
        return f"draw {name}" if self.motion is None else f"film {name} moving {' '.join(self.motion)}"


def ask(
    studio: Studio,
    texts: Sequence[str],
    shown: Sequence[Tensor] | None = None,
    **options: Any,
) -> list[list[int]]:
    """The answers to requests in words, each after a picture or video in codes (t, y, x) where given.

    The options are those of `generate.write`.
    """
    v = studio.vocabulary
    before = [[] for _ in texts] if shown is None else [v.span(one, len(one) > 1, at=1) for one in shown]
    requests = [Request.of(v, text, codes) for text, codes in zip(texts, before, strict=True)]
    answers: list[list[int]] = []
    for begin in range(0, len(requests), BATCH):
        answers += write(studio.model, requests[begin : begin + BATCH], **options)
    return answers


def text_of(studio: Studio, answer: Sequence[int]) -> str:
    """The words of an answer, without its pictures."""
    v = studio.vocabulary
    return v.text([token for token in answer if v.is_word(token)])


def frames_of(studio: Studio, answer: Sequence[int]) -> Tensor | None:
    """The frames (t, y, x) of the first picture or video in an answer; None if it has none."""
    spans = studio.vocabulary.spans(answer)
    return studio.tokenizer.decode(spans[0][1][None])[0] if spans else None


def make(studio: Studio, wishes: Sequence[Wish], **options: Any) -> list[Tensor | None]:
    """A picture (1, y, x) or a video (t, y, x) for each wish; None where words alone came."""
    return [frames_of(studio, answer) for answer in ask(studio, [w.text for w in wishes], **options)]


def stream_frames(studio: Studio, wish: Wish, **options: Any) -> Iterator[tuple[float, Tensor]]:
    """The share of codes that is written, with the frames (t, y, x) that are certain by then.

    Yields once for every latent frame, as soon as its last code is there: the tokenizer is causal in time, so
    later codes do not change earlier frames. The options are those of `generate.stream`.
    """
    v = studio.vocabulary
    machine, codes = Grammar(v, [v.bos, *v.words(wish.text)]), list[int]()
    for (token,) in stream(studio.model, [Request.of(v, wish.text)], **options):
        assert token is not None
        machine.read(token)
        if token < v.first_code:
            continue
        codes.append(token - v.first_code)
        header = machine.header
        if len(codes) % (header.y * header.x) == 0:
            latent = torch.tensor(codes).view(1, -1, header.y, header.x)
            yield len(codes) / header.n_codes, studio.tokenizer.decode(latent)[0]
        if len(codes) == header.n_codes:
            return


def captions(studio: Studio, codes: Sequence[Tensor]) -> list[str]:
    """What the model says a picture or video shows, greedily: after "this is", or "shows"."""
    texts = ["shows" if len(one) > 1 else "this is" for one in codes]
    answers = ask(studio, texts, codes, sampling=GREEDY, max_new_tokens=12)
    return [text_of(studio, answer) for answer in answers]
