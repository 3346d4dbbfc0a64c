"""What a policy writes: prompts, documents to learn from, and completions taken apart.

<bos> question <assistant> <think> thinking </think> answer <end>       thinks
<bos> question <assistant> </think> answer <end>                        answers at once
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from workbench.reasoning.tasks.problem import Problem
from workbench.reasoning.vocabulary import ANSWER, ASSISTANT, BOS, END, THINK, VOCABULARY

END_ID = VOCABULARY.id(END)


class Completion(NamedTuple):
    """A completion taken apart. `answer` is None where none can be told: the form was not kept.

    `thinking` is None where the policy answered at once.
    """

    thinking: str | None
    answer: str | None
    is_well_formed: bool


class Document(NamedTuple):
    """A text to learn from: its tokens, how many of them are the prompt, and where behind it others speak."""

    ids: list[int]
    prompt_tokens: int
    heard: range = range(0)


def prompt_ids(problem: Problem, system: str = "") -> list[int]:
    """The tokens before a completion. `system` is words that stand before the question."""
    return VOCABULARY.encode(f"{BOS} {system} {problem.question} {ASSISTANT}")


def document(prompt: Sequence[int], thinking: str | None, answer: str) -> Document:
    """A prompt with its solution; thinking None answers at once."""
    thought = "" if thinking is None else f"{THINK} {thinking}"
    ids = VOCABULARY.encode(f"{thought} {ANSWER} {answer} {END}")
    return Document([*prompt, *ids], len(prompt))


def solved(problem: Problem, rng: random.Random, *, thinks: bool = True, system: str = "") -> Document:
    """A problem with its family's own solution."""
    solution = problem.solve(rng)
    return document(prompt_ids(problem, system), solution.thinking if thinks else None, solution.answer)


def read_completion(ids: Sequence[int]) -> Completion:
    """Take a completion apart. Well formed: an optional <think> first, one </think>, <end> last."""
    words = VOCABULARY.decode(ids).split()
    begins_well = bool(words) and words[0] in (THINK, ANSWER)
    markers = [word for word in words if word in (THINK, ANSWER, END)]
    wanted = [THINK, ANSWER, END] if words[:1] == [THINK] else [ANSWER, END]
    if not begins_well or markers != wanted or words[-1] != END:
        return Completion(" ".join(words[1:]) if words[:1] == [THINK] else None, None, False)
    cut = words.index(ANSWER)
    thinking = " ".join(words[1:cut]) if words[0] == THINK else None
    return Completion(thinking, " ".join(words[cut + 1 : -1]), True)
