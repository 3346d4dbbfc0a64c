"""Families in which an answer is found by trying: a number that solves an equation, a way to a target."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass

from workbench.reasoning.tasks.expressions import BadExpression, evaluate
from workbench.reasoning.tasks.problem import Solution


@dataclass(frozen=True)
class Division:
    """Find x with a·x = b modulo a prime: `solve a b`. The levels are ranges of a: up to each.

    Thinking tries numbers, `x value`, until the value is b, and marks it `!`. `luck` is how often a try
    is planted to be right: with fewer successes to see, a small network never learns to recognise one.
    `haste` is how often a solution gives up after a wrong try and answers with it: from such texts a base
    learns to search, and to stop too early.
    """

    prime: int = 17
    luck: float = 0.25
    haste: float = 0.0
    levels: tuple[int, ...] = (4, 8, 16)
    name: str = "division"

    def draw(self, rng: random.Random, level: int) -> str:
        return f"solve {rng.randint(2, level)} {rng.randrange(1, self.prime)}"

    def solve(self, question: str, rng: random.Random) -> Solution:
        a, b = map(int, question.split()[1:])
        right = pow(a, -1, self.prime) * b % self.prime
        wrong = [x for x in range(1, self.prime) if x != right]
        rng.shuffle(wrong)
        steps = []
        while wrong and rng.random() >= self.luck:
            x = wrong.pop()
            steps.append(f"{x} {a * x % self.prime} ?")
            if self.haste and rng.random() < self.haste:
                return Solution(" ".join(steps), str(x))
        return Solution(" ".join([*steps, f"{right} {b} !"]), str(right))

    def verify(self, question: str, answer: str) -> bool:
        a, b = map(int, question.split()[1:])
        return any(answer == str(x) and a * x % self.prime == b for x in range(self.prime))

    def key(self, question: str) -> str:
        return question


@dataclass(frozen=True)
class Countdown:
    """Reach a target from the numbers given, each used once, with + - and *: `countdown 2 7 5 = 19`.

    Thinking tries expressions and their values. The answer is an expression; it is worked out by
    `expressions.evaluate`, and any that is right counts.
    """

    largest: int = 9
    signs: str = "+-*"
    luck: float = 0.25
    levels: tuple[int, ...] = (2, 3)
    name: str = "countdown"

    def draw(self, rng: random.Random, level: int) -> str:
        while True:
            numbers = [rng.randint(1, self.largest) for _ in range(level)]
            value = evaluate(self._expression(numbers, rng))
            if 0 <= value <= 99:
                return f"countdown {' '.join(map(str, numbers))} = {value}"

    def _expression(self, numbers: list[int], rng: random.Random) -> str:
        words = [str(number) for number in rng.sample(numbers, len(numbers))]
        return " ".join([words[0], *(f"{rng.choice(self.signs)} {word}" for word in words[1:])])

    def _given(self, question: str) -> tuple[list[int], int]:
        numbers, target = question.removeprefix("countdown ").split(" = ")
        return [int(word) for word in numbers.split()], int(target)

    def solve(self, question: str, rng: random.Random) -> Solution:
        numbers, target = self._given(question)
        right = sorted(text for text in self._all(numbers) if evaluate(text) == target)
        answer = rng.choice(right)
        steps: list[str] = []
        while rng.random() >= self.luck and len(steps) < 8:
            text = self._expression(numbers, rng)
            if 0 <= evaluate(text) <= 99 and evaluate(text) != target:
                steps.append(f"{text} = {evaluate(text)} ?")
        return Solution(" ".join([*steps, f"{answer} = {target} !"]), answer)

    def _all(self, numbers: list[int]) -> set[str]:
        """Every expression without brackets."""
        return {
            " ".join([str(order[0]), *(f"{s} {n}" for s, n in zip(signs, order[1:], strict=True))])
            for order in itertools.permutations(numbers)
            for signs in itertools.product(self.signs, repeat=len(numbers) - 1)
        }

    def verify(self, question: str, answer: str) -> bool:
        numbers, target = self._given(question)
        used = [int(word) for word in answer.split() if word.isascii() and word.isdigit() and len(word) < 7]
        try:
            return Counter(used) == Counter(numbers) and evaluate(answer) == target
        except BadExpression:
            return False

    def key(self, question: str) -> str:
        numbers, target = self._given(question)
        return f"{sorted(numbers)} {target}"
