"""One vocabulary for text, control and code tokens, and the form of what is written in it.

    document = bos (word | picture | video)* eos
    picture  = boi h w pad* code^(h·w) eoi
    video    = bov t h w pad* code^(t·h·w) eov

Sizes stand in the sequence itself, so every picture says how many codes follow. Codes go row by row, frames
in time order, without marks between rows. Pads bring the first code to a multiple of four, V4's CSA ratio
(CSA is compressed sparse attention): whole windows then hold codes alone. V4's released tokenizer reserves
415 ids for other media; markers, sizes and 240 codes are fewer.

The words are a closed set: this is a language of digits and motions, not English.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DIGIT_WORDS = "zero one two three four five six seven eight nine".split()
WORDS = (
    *DIGIT_WORDS,
    *("thin", "bold", "left", "right", "up", "down", "slowly", "quickly"),
    *("draw", "film", "a", "moving", "this", "is", "shows", "move", "it", "plus", "after", "comes", "."),
)
MARKERS = ("<bos>", "<eos>", "<pad>", "<boi>", "<eoi>", "<bov>", "<eov>", "<null>")
LARGEST_SIDE = 8  # latent rows, columns or frames that a size token can say
ALIGNMENT = 4


@dataclass(frozen=True)
class Header:
    """What stands before codes: frames, rows and columns of the latent grid."""

    is_video: bool
    t: int
    y: int
    x: int

    @property
    def n_codes(self) -> int:
        return self.t * self.y * self.x


class Vocabulary:
    """Ids of everything: markers, words, sizes 1 ... 8, then the codes of a tokenizer."""

    def __init__(self, n_codes: int):
        self.n_codes = n_codes
        names = [*MARKERS, *WORDS, *(f"<size {n}>" for n in range(1, LARGEST_SIDE + 1))]
        self.names = names
        self._ids = {name: index for index, name in enumerate(names)}
        self.first_code = len(names)
        self.size = self.first_code + n_codes
        self.bos, self.eos, self.pad, self.boi, self.eoi, self.bov, self.eov, self.null = range(len(MARKERS))
        self.first_size = self._ids["<size 1>"]

    def words(self, text: str) -> list[int]:
        """Ids of a text of known words.

        Raises:
            ValueError: a word that is not in the closed set.
        """
        unknown = [word for word in text.split() if word not in WORDS]
        if unknown:
            raise ValueError(
                f"Vocabulary.words: got {unknown[0]!r} in {text!r}; needs words of the closed set; "
                f"write with {' '.join(WORDS)}"
            )
        return [self._ids[word] for word in text.split()]

    def text(self, ids: Sequence[int]) -> str:
        """The words of ids; markers, sizes and codes by name."""
        return " ".join(self.name(token) for token in ids)

    def name(self, token: int) -> str:
        return self.names[token] if token < self.first_code else f"<code {token - self.first_code}>"

    def is_word(self, token: int) -> bool:
        return len(MARKERS) <= token < self.first_size

    def begin(self, header: Header, at: int) -> list[int]:
        """What stands before the codes of a picture or video that begins at position `at`.

        Raises:
            ValueError: a size above 8, or a picture of several frames.
        """
        sides = [header.t, header.y, header.x] if header.is_video else [header.y, header.x]
        if not all(1 <= n <= LARGEST_SIDE for n in (header.t, *sides)) or not (
            header.is_video or header.t == 1
        ):
            raise ValueError(
                f"Vocabulary.begin: got {header}; needs sizes from 1 to {LARGEST_SIDE}, and one frame in a "
                f"picture; make it smaller, or a video"
            )
        head = [self.bov if header.is_video else self.boi, *(self.first_size + n - 1 for n in sides)]
        return head + [self.pad] * (-(at + len(head)) % ALIGNMENT)

    def span(self, codes: Tensor, is_video: bool, at: int) -> list[int]:
        """A whole picture or video: codes (t, y, x) that begin at position `at` of the document."""
        t, y, x = codes.shape
        head = self.begin(Header(is_video, t, y, x), at)
        end = self.eov if is_video else self.eoi
        return [*head, *(codes.flatten() + self.first_code).tolist(), end]

    def spans(self, ids: Sequence[int]) -> list[tuple[Header, Tensor]]:
        """Every whole picture and video of a document, as codes (t, y, x).

        Raises:
            ValueError: a span that is cut off or holds something else than its header says.
        """
        found, at = [], 0
        while at < len(ids):
            if ids[at] in (self.boi, self.bov):
                header, at = self._read_header(ids, at)
                codes = torch.tensor(ids[at : at + header.n_codes]) - self.first_code
                at += header.n_codes
                end = self.eov if header.is_video else self.eoi
                if at >= len(ids) or ids[at] != end or bool((codes < 0).any()):
                    raise ValueError(
                        f"Vocabulary.spans: got {self.text(ids[at - 3 : at + 1])!r} at the end of {header}; "
                        f"needs {header.n_codes} codes and {self.name(end)}; write with Grammar"
                    )
                found.append((header, codes.view(header.t, header.y, header.x)))
            at += 1
        return found

    def _read_header(self, ids: Sequence[int], at: int) -> tuple[Header, int]:
        is_video = ids[at] == self.bov
        n = 3 if is_video else 2
        sides = [token - self.first_size + 1 for token in ids[at + 1 : at + 1 + n]]
        if len(sides) < n or not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise ValueError(
                f"Vocabulary.spans: got {self.text(ids[at : at + 1 + n])!r}; needs {n} sizes after "
                f"{self.name(ids[at])}; write with Grammar"
            )
        at += 1 + n
        while at < len(ids) and ids[at] == self.pad:
            at += 1
        return Header(is_video, *([1] * (3 - n)), *sides), at
