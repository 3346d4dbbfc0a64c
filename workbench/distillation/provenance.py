"""Two more ways to ask whether a model learnt from another: planted answers, and errors in common.

Planted answers are drawn with a secret key before anything is sold: for few questions the interface gives a
wrong answer. How many of those a suspect repeats has an exact p-value, since the keys that were not
used are a null. They cost honest users that many wrong answers.

Errors in common need nothing planted, and have no such null: innocent models share errors too, where problems
are hard or the teaching was alike. All that can be said is where a suspect stands among models known to be
innocent.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.model import Sampling, Transformer
from workbench.reasoning.completions import Document, document, read_completion
from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.tasks import Problem

GREEDY = Sampling()


@dataclass(frozen=True)
class Planted:
    """Wrong answers to a secret share of questions, all from one key.

    Args:
        answers: what may be answered at all; a planted answer is one of those that are wrong.
    """

    key: int
    answers: tuple[str, ...]
    share: float = 0.05

    def answer(self, problem: Problem) -> str | None:
        """What is answered instead; None for most questions."""
        rng = random.Random(f"{self.key} {problem.key}")
        if rng.random() >= self.share:
            return None
        return rng.choice([answer for answer in self.answers if not problem.verify(answer)])

    def plant(self, problem: Problem, own: Document) -> Document:
        """The text that is sold: as it is, or with another answer, also in its last step of three words."""
        wrong = self.answer(problem)
        found = read_completion(own.ids[own.prompt_tokens :])
        if wrong is None or found.answer is None:
            return own
        if found.thinking is None:
            return document(own.ids[: own.prompt_tokens], None, wrong)
        words = found.thinking.split()
        last = [wrong if word == found.answer else word for word in words[-3:]]
        return document(own.ids[: own.prompt_tokens], " ".join([*words[:-3], *last]), wrong)

    def repeated(self, given: Mapping[Problem, str | None]) -> tuple[int, int]:
        """How many planted answers a model gave, of how many asked."""
        planted = {p: own for p in given if (own := self.answer(p)) is not None}
        return sum(given[p] == own for p, own in planted.items()), len(planted)


def planted_p(planted: Planted, given: Mapping[Problem, str | None], *, draws: int = 999) -> float:
    """The share of keys, the used one among them, of whose planted answers as many are repeated."""
    own, _ = planted.repeated(given)
    rng = random.Random(0)
    others = [
        Planted(rng.randrange(2**40, 2**60), planted.answers, planted.share).repeated(given)[0]
        for _ in range(draws)
    ]
    return (1 + sum(count >= own for count in others)) / (1 + draws)


def greedy_answers(
    policy: Transformer, problems: Sequence[Problem], max_new_tokens: int
) -> dict[Problem, str | None]:
    """The most likely answer to each problem."""
    found = evaluate(policy, problems, max_new_tokens=max_new_tokens, sampling=GREEDY)
    return {problem: row[0] for problem, row in zip(problems, found.answers, strict=True)}


def shared_errors(suspect: Mapping[Problem, str | None], teacher: Mapping[Problem, str | None]) -> float:
    """Of the problems that both get wrong, the share with the same wrong answer; nan if there are none.

    An answer that keeps no form counts as wrong and is like no other.
    """
    both = [p for p in teacher if _is_wrong(p, teacher[p]) and _is_wrong(p, suspect[p])]
    same = [suspect[p] is not None and suspect[p] == teacher[p] for p in both]
    return float(np.mean(same)) if both else float("nan")


def _is_wrong(problem: Problem, answer: str | None) -> bool:
    return answer is None or not problem.verify(answer)
