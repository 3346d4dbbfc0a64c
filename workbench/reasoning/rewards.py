"""What an answer earns: by rule, never by a network.

    reward = accuracy + form_weight·(form kept) + language_weight·(share of the target language)
             - length_weight·(tokens / max_tokens) + overlong punishment

R1-Zero's is accuracy and form, equally; R1's first stage adds the language share of the thinking. DAPO's
punishment falls from 0 to -1 over the last `overlong_tokens` before the limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workbench.reasoning.completions import read_completion
from workbench.reasoning.tasks.problem import Problem
from workbench.reasoning.vocabulary import CHINESE

Verifier = Callable[[Problem, Sequence[int]], bool]


def language_share(text: str | None) -> float:
    """The share of a text's digits written as 0 to 9 and not in Chinese numerals; 1 without digits."""
    words = (text or "").split()
    western = sum(word.isascii() and word.isdigit() for word in words)
    chinese = sum(word in CHINESE for word in words)
    return western / (western + chinese) if western + chinese else 1.0


def is_right(problem: Problem, ids: Sequence[int]) -> bool:
    """The rule: the form is kept, and the answer after </think> passes the family's check."""
    answer = read_completion(ids).answer
    return answer is not None and problem.verify(answer)


class Score(NamedTuple):
    """What an answer earned and why. `reward` is the sum that training sees; `is_right` is the truth."""

    reward: float
    is_right: bool
    is_well_formed: bool
    thinks: bool
    language: float
    tokens: int


@dataclass(frozen=True)
class Rules:
    """Weights of the parts.

    Args:
        max_tokens: the limit that lengths are measured by; needed by length_weight and overlong_tokens.
        verifier: who decides on accuracy. Another than `is_right` is how reward hacking is shown.

    Raises:
        ValueError: a length rule without max_tokens.
    """

    form_weight: float = 0.0
    language_weight: float = 0.0
    length_weight: float = 0.0
    overlong_tokens: int = 0
    max_tokens: int | None = None
    verifier: Verifier = is_right

    def __post_init__(self) -> None:
        if (self.length_weight or self.overlong_tokens) and not self.max_tokens:
            raise ValueError(
                f"Rules: got length_weight={self.length_weight}, overlong_tokens={self.overlong_tokens} and "
                f"max_tokens={self.max_tokens}; length rules need max_tokens; give the rollout's limit"
            )

    def score(self, problem: Problem, ids: Sequence[int]) -> Score:
        """What one answer earns."""
        completion = read_completion(ids)
        language = language_share(completion.thinking)
        reward = float(self.verifier(problem, ids))
        reward += self.form_weight * completion.is_well_formed + self.language_weight * language
        if self.max_tokens:
            reward -= self.length_weight * len(ids) / self.max_tokens
            reward += overlong_punishment(len(ids), self.max_tokens, self.overlong_tokens)
        return Score(
            reward,
            is_right(problem, ids),
            completion.is_well_formed,
            completion.thinking is not None,
            language,
            len(ids),
        )


def overlong_punishment(tokens: int, max_tokens: int, overlong_tokens: int) -> float:
    """0 up to max_tokens - overlong_tokens, then linear to -1 at max_tokens (DAPO, arXiv 2503.14476)."""
    past = tokens - (max_tokens - overlong_tokens)
    return -past / overlong_tokens if overlong_tokens and past > 0 else 0.0
