"""Tasks whose answer stands somewhere earlier in the document, each to be found in another way.

recall      by a key, among many pairs close together         a1 b7 a4 b2 ... ? a4 -> b2
needles     by a key, far back among tokens that mean nothing  . . a4 b2 . . . . . ? a4 -> b2
local copy  by distance alone                                  c c d a c | c c d a c
induction   by what came before it, any token being a key     f c a d b ... ? c -> a
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from workbench.training.tasks.task import Sample

ASK, MARK = 0, 1  # tokens that say "a question follows" and "a needle follows"


@dataclass(frozen=True)
class AssociativeRecall:
    """Pairs of a key and a value, then questions: a key drawn anew each time, and its value.

    Keys of a document differ, and so do values. Chance: some value of the document, unread which is asked.
    """

    n_pairs: int = 8
    n_questions: int = 8
    n_keys: int = 28
    n_values: int = 28

    def __post_init__(self) -> None:
        _check("AssociativeRecall", self.n_pairs, self.n_questions, self.n_keys, self.n_values)

    @property
    def vocab_size(self) -> int:
        return 2 + self.n_keys + self.n_values

    @property
    def chance(self) -> float:
        return 1 / self.n_pairs

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        pairs = _pairs(rng, self.n_pairs, self.n_keys, self.n_values)
        return _with_questions([token for pair in pairs for token in pair], pairs, rng, self.n_questions)

    def solve(self, ids: Sequence[int]) -> int:
        return ids[ids.index(ids[-1]) + 1]


@dataclass(frozen=True)
class Needles:
    """Pairs of a key and a value at random places in filler, then `distance` tokens of filler, questions.

    With `distance` beyond what window keys can hand upwards (`model.reach.exact_reach`), the answer can
    only come through compressed entries. Chance: the value of some needle.
    """

    n_needles: int = 3
    n_questions: int = 3
    haystack_tokens: int = 48
    distance: int = 64
    n_keys: int = 16
    n_values: int = 16
    n_fillers: int = 16

    def __post_init__(self) -> None:
        _check("Needles", self.n_needles, self.n_questions, self.n_keys, self.n_values)
        if self.haystack_tokens < 3 * self.n_needles or self.distance < 0 or self.n_fillers < 1:
            raise ValueError(
                f"Needles: got haystack_tokens={self.haystack_tokens}, distance={self.distance}, n_fillers="
                f"{self.n_fillers}; needs 3 tokens for each of {self.n_needles} needles, distance >= 0 and a "
                f"filler; correct the one outside"
            )

    @property
    def vocab_size(self) -> int:
        return 2 + self.n_keys + self.n_values + self.n_fillers

    @property
    def chance(self) -> float:
        return 1 / self.n_needles

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        pairs = _pairs(rng, self.n_needles, self.n_keys, self.n_values)
        n_filler = self.haystack_tokens - 3 * self.n_needles
        # Cuts of the filler between which the needles go: every arrangement is as likely.
        places = sorted(rng.sample(range(n_filler + self.n_needles), self.n_needles))
        body: list[int] = []
        for i, (place, pair) in enumerate(zip(places, pairs, strict=True)):
            body += [*self._filler(rng, place + 2 * i - len(body)), MARK, *pair]
        body += self._filler(rng, self.haystack_tokens - len(body) + self.distance)
        return _with_questions(body, pairs, rng, self.n_questions)

    def _filler(self, rng: random.Random, count: int) -> list[int]:
        return [rng.randrange(self.vocab_size - self.n_fillers, self.vocab_size) for _ in range(count)]

    def solve(self, ids: Sequence[int]) -> int:
        return ids[ids.index(ids[-1]) + 1]


@dataclass(frozen=True)
class LocalCopy:
    """Symbols drawn one by one, and the same again: each answer stands `length` tokens back.

    With few symbols each occurs many times, so looking for the last one tells little. Chance: some symbol.
    """

    length: int = 12
    n_symbols: int = 4

    def __post_init__(self) -> None:
        if self.length < 1 or self.n_symbols < 2:
            raise ValueError(
                f"LocalCopy: got length={self.length}, n_symbols={self.n_symbols}; needs a length of 1 or "
                f"more and 2 symbols or more; correct the one outside"
            )

    @property
    def vocab_size(self) -> int:
        return self.n_symbols

    @property
    def chance(self) -> float:
        return 1 / self.n_symbols

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        block = [rng.randrange(self.n_symbols) for _ in range(self.length)]
        return Sample(block * 2, list(range(self.length, 2 * self.length)))

    def solve(self, ids: Sequence[int]) -> int:
        return ids[-self.length]


@dataclass(frozen=True)
class Induction:
    """Different tokens in a random order, then questions: one of them, and the one that followed it.

    No token is by its kind a key or a value, so the network must join each to the one before. Chance: one
    of those that followed another.
    """

    length: int = 16
    n_questions: int = 8
    n_symbols: int = 32

    def __post_init__(self) -> None:
        if not 2 <= self.length <= self.n_symbols or self.n_questions < 1:
            raise ValueError(
                f"Induction: got length={self.length}, n_symbols={self.n_symbols}, n_questions="
                f"{self.n_questions}; needs 2 <= length <= n_symbols and a question; correct the one outside"
            )

    @property
    def vocab_size(self) -> int:
        return 2 + self.n_symbols

    @property
    def chance(self) -> float:
        return 1 / (self.length - 1)

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        row = rng.sample(range(2, self.vocab_size), self.length)
        return _with_questions(row, list(pairwise(row)), rng, self.n_questions)

    def solve(self, ids: Sequence[int]) -> int:
        return ids[ids.index(ids[-1]) + 1]


def _pairs(rng: random.Random, count: int, n_keys: int, n_values: int) -> list[tuple[int, int]]:
    keys = rng.sample(range(2, 2 + n_keys), count)
    values = rng.sample(range(2 + n_keys, 2 + n_keys + n_values), count)
    return list(zip(keys, values, strict=True))


def _with_questions(
    body: list[int], pairs: Sequence[tuple[int, int]], rng: random.Random, n_questions: int
) -> Sample:
    ids, answers = list(body), []
    for _ in range(n_questions):
        key, value = rng.choice(pairs)
        ids += [ASK, key, value]
        answers.append(len(ids) - 1)
    return Sample(ids, answers)


def _check(name: str, n_pairs: int, n_questions: int, n_keys: int, n_values: int) -> None:
    if not 1 <= n_pairs <= min(n_keys, n_values) or n_questions < 1:
        raise ValueError(
            f"{name}: got {n_pairs} pairs of {n_keys} keys and {n_values} values, n_questions={n_questions}; "
            f"needs 1 pair or more, no more than keys or values, and a question; correct the one outside"
        )
