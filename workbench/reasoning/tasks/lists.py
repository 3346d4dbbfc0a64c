"""Families on short lists of digits: sort one step by step, run a small program, find the program.

A program is a row of operations from a fixed table, run by `run_program`: no loops, no names, a bounded
number of steps on a list of bounded length. That is all an answer can make the machine do.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.reasoning.tasks.problem import Solution

MOST_STEPS = 16

OPERATIONS: dict[str, Callable[[list[int]], list[int]]] = {
    "reverse": lambda row: row[::-1],
    "rotate": lambda row: row[1:] + row[:1],
    "swap": lambda row: [row[1], row[0], *row[2:]],
    "increment": lambda row: [(x + 1) % 10 for x in row],
    "double": lambda row: [2 * x % 10 for x in row],
    "negate": lambda row: [-x % 10 for x in row],
}


def run_program(operations: Sequence[str], row: Sequence[int]) -> list[list[int]]:
    """The list after every operation.

    Raises:
        ValueError: an operation outside the table, more than MOST_STEPS, or a list under two numbers.
    """
    wrong = [name for name in operations if name not in OPERATIONS]
    if wrong or len(operations) > MOST_STEPS or len(row) < 2:
        raise ValueError(
            f"run_program: got {len(operations)} operations, unknown {wrong[:3]}, on {len(row)} numbers; "
            f"needs at most {MOST_STEPS} of {list(OPERATIONS)} on 2 numbers or more; write it with those"
        )
    states, now = [], list(row)
    for name in operations:
        now = OPERATIONS[name](now)
        states.append(now)
    return states


def _text(row: Sequence[int]) -> str:
    return " ".join(map(str, row))


@dataclass(frozen=True)
class Sorting:
    """Sort digits: `sort 5 2 7 1`. Thinking writes the list after every pass of bubble sort.

    A level is how many digits are out of their sorted place at most; the list is always as long.
    """

    length: int = 5
    levels: tuple[int, ...] = (3, 4, 5)
    name: str = "sorting"

    def draw(self, rng: random.Random, level: int) -> str:
        row = sorted(rng.randrange(10) for _ in range(self.length))
        begin = rng.randrange(self.length - level + 1)
        part = row[begin : begin + level]
        rng.shuffle(part)
        return "sort " + _text([*row[:begin], *part, *row[begin + level :]])

    def solve(self, question: str, rng: random.Random) -> Solution:
        row = [int(word) for word in question.split()[1:]]
        passes = []
        for last in range(self.length - 1, 0, -1):
            for i in range(last):
                row[i], row[i + 1] = min(row[i], row[i + 1]), max(row[i], row[i + 1])
            passes.append(_text(row))
        return Solution(" ; ".join(passes), _text(row))

    def verify(self, question: str, answer: str) -> bool:
        return answer.split() == sorted(question.split()[1:])

    def key(self, question: str) -> str:
        return question


@dataclass(frozen=True)
class ProgramRun:
    """What a program makes of a list: `run rotate double : 3 1 4`. Thinking writes each state."""

    length: int = 4
    levels: tuple[int, ...] = (1, 2, 3)
    name: str = "program run"

    def draw(self, rng: random.Random, level: int) -> str:
        names = [rng.choice(list(OPERATIONS)) for _ in range(level)]
        return f"run {' '.join(names)} : {_text([rng.randrange(10) for _ in range(self.length)])}"

    def _given(self, question: str) -> tuple[list[str], list[int]]:
        names, row = question.removeprefix("run ").split(" : ")
        return names.split(), [int(word) for word in row.split()]

    def solve(self, question: str, rng: random.Random) -> Solution:
        names, row = self._given(question)
        states = run_program(names, row)
        steps = [f"{name} {_text(state)}" for name, state in zip(names, states, strict=True)]
        return Solution(" ; ".join(steps), _text(states[-1]))

    def verify(self, question: str, answer: str) -> bool:
        return answer == _text(run_program(*self._given(question))[-1])

    def key(self, question: str) -> str:
        return question


@dataclass(frozen=True)
class ProgramSearch:
    """A program that turns one list into another: `find 3 1 4 > 8 2 6`. The answer is run, not compared.

    Thinking tries programs, what they give, and marks the right one.
    """

    length: int = 3
    luck: float = 0.3
    levels: tuple[int, ...] = (1, 2)
    name: str = "program search"

    def draw(self, rng: random.Random, level: int) -> str:
        while True:
            names = [rng.choice(list(OPERATIONS)) for _ in range(level)]
            row = [rng.randrange(10) for _ in range(self.length)]
            goal = run_program(names, row)[-1]
            if goal != row:
                return f"find {_text(row)} > {_text(goal)}"

    def _given(self, question: str) -> tuple[list[int], list[int]]:
        row, goal = question.removeprefix("find ").split(" > ")
        return [int(word) for word in row.split()], [int(word) for word in goal.split()]

    def solve(self, question: str, rng: random.Random) -> Solution:
        row, goal = self._given(question)
        short = [(name,) for name in OPERATIONS]
        programs: list[tuple[str, ...]] = [*short, *((a, b) for a in OPERATIONS for b in OPERATIONS)]
        right = next(names for names in programs if run_program(names, row)[-1] == goal)
        wrong = [names for names in programs if run_program(names, row)[-1] != goal]
        steps: list[str] = []
        while rng.random() >= self.luck and len(steps) < 4:
            names = rng.choice(wrong)
            steps.append(f"{' '.join(names)} > {_text(run_program(names, row)[-1])} ?")
        return Solution(" ".join([*steps, f"{' '.join(right)} > {_text(goal)} !"]), " ".join(right))

    def verify(self, question: str, answer: str) -> bool:
        row, goal = self._given(question)
        try:
            return bool(answer.split()) and run_program(answer.split(), row)[-1] == goal
        except ValueError:
            return False

    def key(self, question: str) -> str:
        return question
