"""Judging answers as a task of its own: is this answer to that question right?

    <judge> chain 3 + 4 ... : 5      ->      yes | no

So the actor can be its own judge, trained by the same steps, and no second network gives a score (V4's
generative reward model, section 5.1.1). The truth is the judged family's rule.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.reasoning.tasks.problem import Family, Problem, Solution

JUDGE = "<judge>"


@dataclass(frozen=True)
class Judging:
    """Questions of a family with an answer, right every other time. Thinking solves the question itself.

    A wrong answer is the right one to another question of the same level.
    """

    family: Family

    @property
    def name(self) -> str:
        return f"judging {self.family.name}"

    @property
    def levels(self) -> tuple[int, ...]:
        return self.family.levels

    def draw(self, rng: random.Random, level: int) -> str:
        question = self.family.draw(rng, level)
        answer, is_right = self.family.solve(question, rng).answer, rng.random() < 0.5
        while self.family.verify(question, answer) != is_right:
            answer = self.family.solve(self.family.draw(rng, level), rng).answer
        return f"{JUDGE} {question} : {answer}"

    def _given(self, question: str) -> tuple[str, str]:
        asked, _, answer = question.removeprefix(f"{JUDGE} ").rpartition(" : ")
        return asked, answer

    def solve(self, question: str, rng: random.Random) -> Solution:
        asked, answer = self._given(question)
        own = self.family.solve(asked, rng)
        verdict = "yes" if self.family.verify(asked, answer) else "no"
        return Solution(own.thinking, verdict)

    def verify(self, question: str, answer: str) -> bool:
        return answer == ("yes" if self.family.verify(*self._given(question)) else "no")

    def key(self, question: str) -> str:
        """A judgement leaks as soon as its question does, whatever the answer."""
        return self.family.key(self._given(question)[0])


def judgements(problems: Sequence[Problem], answers: Sequence[Sequence[str | None]]) -> list[Problem]:
    """A policy's own answers (some to each problem) as questions to its judge; without form, none."""
    return [
        Problem(Judging(problem.family), problem.level, f"{JUDGE} {problem.question} : {answer}")
        for problem, own in zip(problems, answers, strict=True)
        for answer in own
        if answer
    ]
