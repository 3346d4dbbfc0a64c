"""What a task with a checkable answer is, how its problems are drawn and split, and who leaks into whom.

A family makes questions of stated levels, checks answers by rule, and can solve its own questions in
steps. Any object with the members of `Family` is one.

Which side of the split a problem is on follows from the problem itself (a checksum of its key), so
training and held-out problems differ whatever was drawn, in which order, with which seed.
"""

import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

HELD_OUT_ONE_IN = 5
TRIES = 2000  # draws in a row on the wrong side of the split before the level is called empty


class Solution(NamedTuple):
    """Steps in words, and the answer that they lead to."""

    thinking: str
    answer: str


class Family(Protocol):
    """Problems of one kind.

    Questions, thinking and answers are texts in the words of `vocabulary.VOCABULARY`. `solve` sees the
    question alone. `verify` decides by rule and never runs the text it is given; it may be handed
    anything at all. `key` is the same for two questions that are one problem in two wordings.
    """

    @property
    def name(self) -> str: ...

    @property
    def levels(self) -> tuple[int, ...]: ...

    def draw(self, rng: random.Random, level: int) -> str: ...

    def solve(self, question: str, rng: random.Random) -> Solution: ...

    def verify(self, question: str, answer: str) -> bool: ...

    def key(self, question: str) -> str: ...


@dataclass(frozen=True)
class Problem:
    """One question of a family at a level of difficulty."""

    family: Family
    level: int
    question: str

    @property
    def key(self) -> str:
        return f"{self.family.name}: {self.family.key(self.question)}"

    @property
    def is_held_out(self) -> bool:
        return zlib.crc32(self.key.encode()) % HELD_OUT_ONE_IN == 0

    def verify(self, answer: str) -> bool:
        """Whether an answer is right."""
        return self.family.verify(self.question, answer)

    def solve(self, rng: random.Random | None = None) -> Solution:
        """The family's own solution; `rng` draws where it may try one thing or another."""
        return self.family.solve(self.question, random.Random(0) if rng is None else rng)


def draw_problems(
    family: Family,
    count: int,
    seed: int,
    *,
    is_held_out: bool = False,
    levels: Sequence[int] | None = None,
    are_different: bool = False,
) -> list[Problem]:
    """Problems from one side of the split, their levels evenly at random. Same arguments, same problems.

    Args:
        levels: those to draw from; all of the family's if None.
        are_different: no problem twice, as a held-out set should be.

    Raises:
        ValueError: count below 1, a level that the family has not, or fewer such problems than asked for.
    """
    levels = family.levels if levels is None else tuple(levels)
    if count < 1 or not levels or not set(levels) <= set(family.levels):
        raise ValueError(
            f"draw_problems: got count={count} and levels={levels}; needs 1 problem or more at levels of "
            f"{family.levels}; choose among those"
        )
    rng = random.Random(f"{family.name} {is_held_out} {seed}")
    found: list[Problem] = []
    seen: set[str] = set()
    while len(found) < count:
        for _ in range(TRIES):
            level = rng.choice(levels)
            problem = Problem(family, level, family.draw(rng, level))
            if problem.is_held_out == is_held_out and not (are_different and problem.key in seen):
                break
        else:
            raise ValueError(
                f"draw_problems: got {len(found)} problems of {family.name} at levels {levels}, "
                f"is_held_out={is_held_out}; none more in {TRIES} draws, {count} asked for; ask for fewer or "
                f"add levels"
            )
        seen.add(problem.key)
        found.append(problem)
    return found


def leaked(training: Iterable[Problem | str], held_out: Iterable[Problem]) -> list[Problem]:
    """The held-out problems that training could have told: those it holds, in any wording, and those whose
    question stands inside a training text.

    Args:
        training: problems, or texts (documents, prompts) that were trained on.
    """
    keys, texts = set[str](), list[str]()
    for item in training:
        if isinstance(item, Problem):
            keys.add(item.key)
        else:
            texts.append(f" {item} ")
    text = "\n".join(texts)
    return [problem for problem in held_out if problem.key in keys or f" {problem.question} " in text]
