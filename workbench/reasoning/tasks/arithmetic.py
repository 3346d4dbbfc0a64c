"""Families whose steps stand at a constant distance from what they use: sums, chains of operations, parity.

Shorter problems are filled up with zeros. So step i is always as far from digit i, and a small network
can learn where to look.
"""

import random
from dataclasses import dataclass

from workbench.reasoning.tasks.problem import Solution


def _numbers(words: list[str]) -> list[int]:
    return [int(word) for word in words]


@dataclass(frozen=True)
class Addition:
    """The sum of two numbers, given digit by digit, the lowest first: `add a0 b0 a1 b1 ...`.

    Thinking writes each digit of the sum and its carry, the lowest first. The answer has the highest
    digit first and always digits + 1 of them, so that the first word of it needs all carries.
    """

    digits: int = 5
    levels: tuple[int, ...] = (3, 4, 5)
    name: str = "addition"

    def draw(self, rng: random.Random, level: int) -> str:
        pairs = [
            (rng.randrange(10), rng.randrange(10)) if place < level else (0, 0)
            for place in range(self.digits)
        ]
        return "add " + " ".join(f"{a} {b}" for a, b in pairs)

    def solve(self, question: str, rng: random.Random) -> Solution:
        digits = _numbers(question.split()[1:])
        steps, sums, carry = [], [], 0
        for a, b in zip(digits[::2], digits[1::2], strict=True):
            carry, digit = divmod(a + b + carry, 10)
            steps.append(f"{digit} {carry}")
            sums.append(digit)
        return Solution(" ".join(steps), " ".join(map(str, [carry, *reversed(sums)])))

    def verify(self, question: str, answer: str) -> bool:
        digits = question.split()[1:]
        a, b = (int("".join(reversed(own))) for own in (digits[::2], digits[1::2]))
        return answer.split() == list(str(a + b).zfill(self.digits + 1))

    def key(self, question: str) -> str:
        """a + b and b + a are one problem."""
        digits = question.split()[1:]
        return " + ".join(sorted("".join(own) for own in (digits[::2], digits[1::2])))


@dataclass(frozen=True)
class ModularChain:
    """A chain of operations on small numbers, worked from left to right modulo a number.

    Thinking writes the number after every operation.
    """

    modulus: int = 7
    operations: int = 5
    signs: str = "+-*"
    levels: tuple[int, ...] = (3, 4, 5)
    name: str = "modular chain"

    def draw(self, rng: random.Random, level: int) -> str:
        steps = [
            f"{rng.choice(self.signs)} {rng.randrange(self.modulus)}" if place < level else "+ 0"
            for place in range(self.operations)
        ]
        return f"chain {rng.randrange(self.modulus)} " + " ".join(steps)

    def solve(self, question: str, rng: random.Random) -> Solution:
        words = question.split()[1:]
        value, steps = int(words[0]), []
        for sign, operand in zip(words[1::2], _numbers(words[2::2]), strict=True):
            value = {"+": value + operand, "-": value - operand, "*": value * operand}[sign] % self.modulus
            steps.append(f"= {value}")
        return Solution(" ".join(steps), str(value))

    def verify(self, question: str, answer: str) -> bool:
        # Horner's rule written backward: each operation maps x to scale·x + shift.
        scale, shift = 1, 0
        words = question.split()[1:]
        for sign, operand in reversed(list(zip(words[1::2], _numbers(words[2::2]), strict=True))):
            if sign == "*":
                scale *= operand
            else:
                shift += scale * (operand if sign == "+" else -operand)
        return answer == str((scale * int(words[0]) + shift) % self.modulus)

    def key(self, question: str) -> str:
        return question


@dataclass(frozen=True)
class Parity:
    """Whether the number of ones is even (0) or odd (1). Thinking writes the parity after every bit."""

    bits: int = 12
    levels: tuple[int, ...] = (8, 10, 12)
    name: str = "parity"

    def draw(self, rng: random.Random, level: int) -> str:
        return "parity " + " ".join(
            str(rng.randrange(2)) if place < level else "0" for place in range(self.bits)
        )

    def solve(self, question: str, rng: random.Random) -> Solution:
        steps, parity = [], 0
        for bit in _numbers(question.split()[1:]):
            parity ^= bit
            steps.append(str(parity))
        return Solution(" ".join(steps), str(parity))

    def verify(self, question: str, answer: str) -> bool:
        return answer == str(question.split()[1:].count("1") % 2)

    def key(self, question: str) -> str:
        return question
