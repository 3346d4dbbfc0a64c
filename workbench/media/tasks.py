"""What the model learns: documents of words, pictures and videos, with the part that is its answer.

Every picture and video comes with all the words that are true of it; which of them are asked and which are
answered makes the tasks. Only the answer carries loss.

    draw      draw a bold three <picture>
    film      film a bold three moving left slowly <video>
    read      <picture> this is a bold three
    watch     <video> shows a bold three moving left slowly
    animate   <picture> move it left slowly <video>
    next      <picture> this is a bold three after three comes four draw a bold four <picture>
    count     after three comes four; three plus four is seven
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.media.data import DIRECTIONS, SPEEDS, Pictures, move
from workbench.media.tokenizer import MediaTokenizer
from workbench.media.vocabulary import DIGIT_WORDS, Vocabulary
from workbench.model.loss import IGNORED

TASKS = ("draw", "film", "read", "watch", "animate", "next", "count")
MOTIONS = [(direction, speed) for direction in DIRECTIONS for speed in SPEEDS]
NULL_SHARE = 0.1  # of drawn and filmed documents lose their words, for guidance


@dataclass(frozen=True)
class Document:
    """ids, and labels with -100 where no loss is taken; both of one length."""

    task: str
    ids: list[int]
    labels: list[int]


def name_words(digit: int, is_bold: bool) -> str:
    return f"a {'bold' if is_bold else 'thin'} {DIGIT_WORDS[digit]}"


class Writer:
    """Puts a document together: what is told carries no loss, what is answered does."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.ids, self.labels = [vocabulary.bos], [IGNORED]

    def tell(self, ids: list[int]) -> "Writer":
        self.ids += ids
        self.labels += [IGNORED] * len(ids)
        return self

    def answer(self, ids: list[int]) -> "Writer":
        self.ids += ids
        # Pads are no one's choice: what writes is held to them.
        self.labels += [IGNORED if token == self.vocabulary.pad else token for token in ids]
        return self

    def words(self, text: str) -> list[int]:
        return self.vocabulary.words(text)

    def span(self, codes: Tensor) -> list[int]:
        return self.vocabulary.span(codes, is_video=len(codes) > 1, at=len(self.ids))

    def done(self, task: str) -> Document:
        self.answer([self.vocabulary.eos])
        return Document(task, self.ids, self.labels)


class Album:
    """Digits with the codes of each as a picture and as eight videos, ready to be written about.

    Shapes: pictures (b, 1, y, x), videos (b, motions, t, y, x), codes both.
    """

    def __init__(self, pictures: Pictures, tokenizer: MediaTokenizer):
        self.facts = pictures
        self.pictures = tokenizer.encode(pictures.pixels[:, None])
        videos = [tokenizer.encode(move(pictures.pixels, *motion)) for motion in MOTIONS]
        self.videos = torch.stack(videos, dim=1)
        self.names = [
            name_words(int(digit), bool(is_bold))
            for digit, is_bold in zip(pictures.labels, pictures.is_bold, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.names)


def ask(vocabulary: Vocabulary, text: str, is_known: bool = True) -> list[int]:
    """The ids of a request; of as many nulls where it is withheld, for guidance."""
    ids = vocabulary.words(text)
    return ids if is_known else [vocabulary.null] * len(ids)


def draw(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    w.tell(ask(w.vocabulary, f"draw {album.names[index]}", _keeps(rng)))
    return w.answer(w.span(album.pictures[index]))


def film(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    chosen = _below(len(MOTIONS), rng)
    text = f"film {album.names[index]} moving {' '.join(MOTIONS[chosen])}"
    w.tell(ask(w.vocabulary, text, _keeps(rng)))
    return w.answer(w.span(album.videos[index, chosen]))


def read(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    w.tell(w.span(album.pictures[index])).tell(w.words("this is"))
    return w.answer(w.words(album.names[index]))


def watch(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    chosen = _below(len(MOTIONS), rng)
    w.tell(w.span(album.videos[index, chosen])).tell(w.words("shows"))
    return w.answer(w.words(f"{album.names[index]} moving {' '.join(MOTIONS[chosen])}"))


def animate(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    chosen = _below(len(MOTIONS), rng)
    w.tell(w.span(album.pictures[index])).tell(w.words(f"move it {' '.join(MOTIONS[chosen])}"))
    return w.answer(w.span(album.videos[index, chosen]))


def next_digit(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    digit = (int(album.facts.labels[index]) + 1) % 10
    alike = (album.facts.labels == digit) & (album.facts.is_bold == album.facts.is_bold[index])
    others = alike.nonzero().flatten()
    if not len(others):
        raise ValueError(
            f"documents: got an album of {len(album)} digits without {DIGIT_WORDS[digit]!r} in the style of "
            f"{album.names[index]!r}; task 'next' needs one to follow each; give a larger album"
        )
    other = int(others[_below(len(others), rng)])
    w.tell(w.span(album.pictures[index])).tell(w.words("this is")).answer(w.words(album.names[index]))
    w.answer(w.words(f"{successor(digit)} draw {album.names[other]}"))
    return w.answer(w.span(album.pictures[other]))


def count(w: Writer, album: Album, index: int, rng: torch.Generator) -> Writer:
    digit, other = int(album.facts.labels[index]), _below(10, rng)
    if _below(2, rng):
        return w.tell(w.words(f"after {DIGIT_WORDS[digit]} comes")).answer(
            w.words(DIGIT_WORDS[(digit + 1) % 10])
        )
    w.tell(w.words(f"{DIGIT_WORDS[digit]} plus {DIGIT_WORDS[other]} is"))
    return w.answer(w.words(DIGIT_WORDS[(digit + other) % 10]))


def successor(digit: int) -> str:
    """The sentence whose last word is this digit."""
    return f"after {DIGIT_WORDS[(digit - 1) % 10]} comes {DIGIT_WORDS[digit]}"


WRITERS: dict[str, Callable[[Writer, Album, int, torch.Generator], Writer]] = dict(
    zip(TASKS, (draw, film, read, watch, animate, next_digit, count), strict=True)
)


def documents(album: Album, vocabulary: Vocabulary, counts: dict[str, int], seed: int) -> list[Document]:
    """So many documents of each task, about digits of the album in turn.

    Raises:
        ValueError: an unknown task, or `next` about a digit that the album does not go on from.
    """
    unknown = sorted(set(counts) - set(TASKS))
    if unknown:
        raise ValueError(f"documents: got task {unknown[0]!r}; needs one of {list(TASKS)}; choose those")
    rng = torch.Generator().manual_seed(seed)
    written = []
    for task, n in counts.items():
        order = torch.cat([torch.randperm(len(album), generator=rng) for _ in range(-(-n // len(album)))])
        for index in order[:n].tolist():
            written.append(WRITERS[task](Writer(vocabulary), album, index, rng).done(task))
    return written


def _below(n: int, rng: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=rng))


def _keeps(rng: torch.Generator) -> bool:
    return float(torch.rand((), generator=rng)) >= NULL_SHARE
