"""The value of an expression in words, by a parser of our own: nothing is ever handed to Python to run.

    sum = product (("+" | "-") product)*;  product = atom ("*" atom)*;  atom = number | "(" sum ")"

Bounded in words, in depth and in the size of every number on the way.
"""

from dataclasses import dataclass

MOST_WORDS, MOST_DEPTH, LARGEST = 64, 8, 10**6


class BadExpression(ValueError):
    """The words are no expression, or one beyond the bounds."""


@dataclass
class _Parser:
    words: list[str]
    at: int = 0
    depth: int = 0

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def sum(self) -> int:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = _bounded(value + self.product() if self.take() == "+" else value - self.product())
        return value

    def product(self) -> int:
        value = self.atom()
        while self.peek() == "*":
            self.take()
            value = _bounded(value * self.atom())
        return value

    def atom(self) -> int:
        word = self.take()
        if word == "(":
            self.depth += 1
            if self.depth > MOST_DEPTH:
                raise BadExpression(
                    f"evaluate: got brackets deeper than {MOST_DEPTH}; needs fewer; write it flat"
                )
            value = self.sum()
            if self.take() != ")":
                raise BadExpression("evaluate: got an open bracket; needs a ')'; close it")
            self.depth -= 1
            return value
        if not (word.isascii() and word.isdigit()):
            raise BadExpression(f"evaluate: got {word!r} at place {self.at}; needs a number or '('; put one")
        return _bounded(int(word))


def _bounded(value: int) -> int:
    if abs(value) > LARGEST:
        raise BadExpression(f"evaluate: got a value past {LARGEST}; needs a smaller one; use smaller numbers")
    return value


def evaluate(text: str) -> int:
    """The value of an expression of whole numbers, + - * and brackets.

    Raises:
        BadExpression: anything else, or more words, brackets or digits than the bounds.
    """
    words = text.split()
    if len(words) > MOST_WORDS or any(len(word) > 7 for word in words):
        raise BadExpression(f"evaluate: got {len(words)} words; needs at most {MOST_WORDS}, short ones; cut")
    parser = _Parser(words)
    value = parser.sum()
    if parser.at < len(words):
        raise BadExpression(f"evaluate: got {parser.peek()!r} after the end; needs one expression; cut there")
    return value
