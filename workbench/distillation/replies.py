"""What an interface lets out of an answer: everything, a summary, the answer alone, or steps with errors.

Every reply keeps the final answer as the teacher gave it; only the steps before it change.
"""

import random
from collections.abc import Callable, Sequence

from workbench.reasoning.completions import document, read_completion

Reply = Callable[[Sequence[int], Sequence[int], random.Random], list[int]]
"""(prompt, answer's tokens, rng) -> the tokens that the client sees."""


def whole(prompt: Sequence[int], tokens: Sequence[int], rng: random.Random) -> list[int]:
    """As the teacher wrote it."""
    return list(tokens)


def answer_only(prompt: Sequence[int], tokens: Sequence[int], rng: random.Random) -> list[int]:
    """The steps are hidden."""
    return _with_thinking(prompt, tokens, lambda words: None)


def summary(prompt: Sequence[int], tokens: Sequence[int], rng: random.Random) -> list[int]:
    """Half of the steps: two words, then two left out."""
    return _with_thinking(prompt, tokens, lambda words: [w for i, w in enumerate(words) if i % 4 < 2])


def perturbed(share: float) -> Reply:
    """Numbers in the steps are replaced by others below ten, each with this chance."""

    def reply(prompt: Sequence[int], tokens: Sequence[int], rng: random.Random) -> list[int]:
        def change(word: str) -> str:
            if word.isdigit() and rng.random() < share:
                return rng.choice([str(n) for n in range(10) if str(n) != word])
            return word

        return _with_thinking(prompt, tokens, lambda words: [change(word) for word in words])

    return reply


REPLIES: dict[str, Reply] = {
    "whole": whole,
    "5 % of the steps' numbers altered": perturbed(0.05),
    "20 % altered": perturbed(0.2),
    "summary": summary,
    "answer only": answer_only,
}
"""The interfaces that are compared, from open to closed."""


def _with_thinking(
    prompt: Sequence[int], tokens: Sequence[int], change: Callable[[list[str]], list[str] | None]
) -> list[int]:
    """The same answer with other steps; a text that keeps no form is passed on as it is."""
    found = read_completion(tokens)
    if found.answer is None or found.thinking is None:
        return list(tokens)
    words = change(found.thinking.split())
    new = document(prompt, None if words is None else " ".join(words), found.answer)
    return new.ids[new.prompt_tokens :]
