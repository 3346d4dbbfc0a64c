"""What may come next: a small machine that keeps every picture and video complete and decodable.

    text    -> a word, <eos>, <boi> or <bov>         codes  -> codes only, as many as the sizes say
    sizes   -> a size that there is room for          end    -> the end marker that fits the beginning
    pads    -> <pad>, until the first code is aligned

Its state is a function of the tokens read, and with `room` it never begins what it cannot end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.media.vocabulary import ALIGNMENT, LARGEST_SIDE, MARKERS, WORDS, Header, Vocabulary


class Grammar:
    """The state of one row. Read its prompt into it, then ask and read by turns."""

    def __init__(self, vocabulary: Vocabulary, ids: Sequence[int] = ()):
        self.vocabulary = vocabulary
        self._n_read, self._sizes, self._is_video = 0, list[int](), False
        self._state, self._codes_left = "text", 0
        for token in ids:
            self.read(token)

    @property
    def in_codes(self) -> bool:
        return self._state == "codes"

    @property
    def header(self) -> Header:
        """Of the picture or video that was begun last, its sizes being read."""
        return Header(self._is_video, *([1] * (3 - self._n_sizes)), *self._sizes)

    @property
    def is_done(self) -> bool:
        return self._state == "done"

    def read(self, token: int) -> None:
        """Take one more token in.

        Raises:
            ValueError: one that may not stand here.
        """
        v = self.vocabulary
        # A prompt may hold what is never written: begin, null, and words.
        is_fit = self.allowed()[token] or (self._state == "text" and token in (v.bos, v.null))
        if not is_fit:
            raise ValueError(
                f"Grammar.read: got {v.name(token)} after {self._n_read} tokens, in {self._state!r}; needs "
                f"{', '.join(map(v.name, self.allowed().nonzero().flatten()[:3].tolist()))} or the like; "
                f"build prompts with Vocabulary.words and .span"
            )
        self._n_read += 1
        if self._state == "text" and token in (v.boi, v.bov):
            self._state, self._is_video, self._sizes = "sizes", token == v.bov, []
        elif self._state == "sizes":
            self._sizes.append(token - v.first_size + 1)
            if len(self._sizes) == self._n_sizes:
                self._codes_left = _product(self._sizes)
                self._state = "codes" if self._n_read % ALIGNMENT == 0 else "pads"
        elif self._state == "pads" and self._n_read % ALIGNMENT == 0:
            self._state = "codes"
        elif self._state == "codes":
            self._codes_left -= 1
            self._state = "codes" if self._codes_left else "end"
        elif self._state == "end":
            self._state = "text"
        elif token == v.eos:
            self._state = "done"

    @property
    def _n_sizes(self) -> int:
        return 3 if self._is_video else 2

    def allowed(self, room: int = 10**6) -> Tensor:
        """Which tokens may come next, if `room` more can be written: (v,) bool.

        Raises:
            ValueError: too little room to end what has begun.
        """
        v, fits = self.vocabulary, torch.zeros(self.vocabulary.size, dtype=torch.bool)
        if self._state == "codes":
            fits[v.first_code :] = True
        elif self._state == "pads":
            fits[v.pad] = True
        elif self._state == "end":
            fits[v.eov if self._is_video else v.eoi] = True
        elif self._state == "done":
            fits[v.eos] = True
        elif self._state == "sizes":
            fits[v.first_size : v.first_size + LARGEST_SIDE] = torch.tensor(
                [self._tokens_to_end([*self._sizes, n]) <= room for n in range(1, LARGEST_SIDE + 1)]
            )
        else:
            fits[len(MARKERS) : len(MARKERS) + len(WORDS)] = True
            fits[v.eos] = True
            for marker, n_sizes in ((v.boi, 2), (v.bov, 3)):
                fits[marker] = 1 + _span_tokens(self._n_read + 1, [], n_sizes) <= room
        if not fits.any() or (self._state in ("codes", "end") and room < self._codes_left + 1):
            raise ValueError(
                f"Grammar.allowed: got room={room} in {self._state!r} with {self._codes_left} codes to come; "
                f"needs room for all of them and the end marker; allow more new tokens"
            )
        return fits

    def _tokens_to_end(self, sizes: list[int]) -> int:
        return 1 + _span_tokens(self._n_read + 1, sizes, self._n_sizes)


def _span_tokens(n_read: int, sizes: list[int], n_sizes: int) -> int:
    """Tokens from after the last of `sizes` to the end of the span, all other sizes being 1."""
    missing = n_sizes - len(sizes)
    pads = -(n_read + missing) % ALIGNMENT
    return missing + pads + _product(sizes) + 1


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
