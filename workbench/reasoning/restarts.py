"""What happens to the lengths of answers when rollouts are interrupted and started again from scratch.

An interruption strikes every token with the same probability (the hazard). An answer of n tokens gets
through with probability (1 - hazard)^n. Started again from scratch until one gets through, the answers
that come out have the law

    p'(n) ∝ p(n) (1 - hazard)^n

so short ones are favoured, however good the long ones are. Continuing from a log changes nothing.

Report: section 5.2.3.
"""

import random
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


def restarted_law(lengths: ArrayLike, probability: ArrayLike, hazard: float) -> NDArray[np.float64]:
    """The law of lengths that restarting leaves, given the law without interruptions.

    Raises:
        ValueError: a hazard outside [0, 1).
    """
    _check(hazard)
    weight = np.asarray(probability, dtype=float) * (1 - hazard) ** np.asarray(lengths, dtype=float)
    return weight / weight.sum()


def interrupted(
    draw: Callable[[], Sequence[int]],
    hazard: float,
    rng: random.Random,
    how: Literal["restart", "resume"],
) -> tuple[list[int], int]:
    """One answer that got through, and how many tokens were generated for it.

    Tokens come one by one; after each, an interruption may strike. "restart" throws the answer away and
    draws another; "resume" goes on behind the last token.

    Args:
        draw: a new answer of the policy, each time another.

    Raises:
        ValueError: a hazard outside [0, 1).
    """
    _check(hazard)
    generated = 0
    while True:
        answer: list[int] = []
        for token in draw():
            answer.append(token)
            generated += 1
            if how == "restart" and rng.random() < hazard:
                break
        else:
            return answer, generated


def _check(hazard: float) -> None:
    if not 0 <= hazard < 1:
        raise ValueError(
            f"restarts: got hazard={hazard}; needs a probability a token from 0 to below 1; choose one"
        )
