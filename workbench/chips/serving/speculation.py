"""How many decoding steps an answer takes when drafts are accepted or not, by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.accounting.speculation import tokens_per_step

# Steps drawn at a time: memory stays below a few tens of MB.
_MOST_DRAWS = 2_000_000


@dataclass(frozen=True)
class Drafts:
    """`draft_tokens` drafts a step, each accepted with chance `acceptance` if those before it were.

    Raises:
        ValueError: a negative number of drafts, or an acceptance that is no probability.
    """

    draft_tokens: int = 0
    acceptance: float = 0.0

    def __post_init__(self) -> None:
        tokens_per_step(self.acceptance, self.draft_tokens)

    @property
    def tokens_per_step(self) -> float:
        """Mean tokens that a step yields."""
        return tokens_per_step(self.acceptance, self.draft_tokens)


def drafts_of(accepted_length: float, draft_tokens: int) -> Drafts:
    """Drafts whose mean yield is a measured one.

    Raises:
        ValueError: a yield below 1 or above 1 + draft_tokens.
    """
    if not 1 <= accepted_length <= 1 + draft_tokens:
        raise ValueError(
            f"drafts_of: accepted_length is {accepted_length}; {draft_tokens} drafts yield 1 to "
            f"{1 + draft_tokens} tokens a step; change one of them"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if tokens_per_step(middle, draft_tokens) < accepted_length else (low, middle)
        )
    return Drafts(draft_tokens, (low + high) / 2)


def answer_steps(tokens: npt.NDArray[np.int64], drafts: Drafts, seed: int) -> npt.NDArray[np.int64]:
    """Steps until `tokens` tokens are there, for each answer.

    Tokens of the last step beyond the end of an answer are thrown away, as engines do.

    Shapes: tokens (n,) -> (n,).
    """
    if not drafts.draft_tokens or drafts.acceptance == 0:
        return tokens.copy()
    if drafts.acceptance == 1:
        return -(-tokens // (1 + drafts.draft_tokens))
    random = np.random.default_rng(seed)
    steps = np.empty_like(tokens)
    ends = np.cumsum(tokens)
    start = 0
    while start < len(tokens):
        # As many answers as the draws allow; an answer of n tokens takes n steps at most.
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _MOST_DRAWS, side="right")), start + 1)
        most = tokens[start:stop]
        # A miss ends a run of accepted drafts: the trials until the first miss are geometric.
        yields = np.minimum(random.geometric(1 - drafts.acceptance, int(most.sum())), 1 + drafts.draft_tokens)
        total = np.r_[0, np.cumsum(yields)]
        first = np.cumsum(most) - most
        steps[start:stop] = np.searchsorted(total, total[first] + most, side="left") - first
        start = stop
    return steps
