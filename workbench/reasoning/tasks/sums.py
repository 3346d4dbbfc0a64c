"""Sums of two numbers, highest digit first: short ones go in the head, long ones do not."""

import random
from dataclasses import dataclass

from workbench.reasoning.tasks.problem import Solution


@dataclass(frozen=True)
class Sum:
    """`048 + 007`, for the chat format of `agent`. A level is how many digits both numbers have.

    Shorter numbers are filled up with zeros, and so is the answer: `0055`. So every digit stands as far
    from where it is needed, and a small network can learn where to look.
    """

    digits: int = 3
    levels: tuple[int, ...] = (1, 2, 3)
    name: str = "sum"

    def draw(self, rng: random.Random, level: int) -> str:
        a, b = (rng.randrange(10 ** (level - 1), 10**level) for _ in range(2))
        return f"{a:0{self.digits}} + {b:0{self.digits}}"

    def solve(self, question: str, rng: random.Random) -> Solution:
        return Solution("", str(sum(map(int, question.split(" + ")))).zfill(self.digits + 1))

    def verify(self, question: str, answer: str) -> bool:
        return answer == self.solve(question, random.Random(0)).answer

    def key(self, question: str) -> str:
        """a + b and b + a are one problem."""
        return " + ".join(sorted(question.split(" + ")))
