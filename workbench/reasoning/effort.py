"""Reasoning effort: how much a policy thinks is what its training let thoughts cost.

    low     every token is dear, and a thought does not fit the window: answer at once
    high    a token has a price: think where thinking pays
    max     tokens are free: think always

Nobody shows a policy how long to think. One base, which thinks half the time, is trained once for each
effort by GRPO; the reward is accuracy minus the price of the tokens. As in V4 each effort is a model of
its own, ready to be merged by distillation.

Departs: prices are not published; these are ours. V4 closes the thought beforehand in Non-think.
Report: section 5.1.1, table 2.
"""

import random
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.model import Transformer
from workbench.reasoning.completions import solved
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.grpo import Questions, train_policy
from workbench.reasoning.pipelines import ZERO
from workbench.reasoning.recipe import RLRecipe
from workbench.reasoning.tasks.problem import Family, draw_problems


@dataclass(frozen=True)
class Effort:
    """What thought costs.

    Args:
        word: stands before the question.
        token_price: what each token of an answer takes from its reward. A thought of n tokens pays where
            it makes the answer right more often by n times this.
        window: the most tokens of an answer, in training and in use.
    """

    word: str
    token_price: float
    window: int

    def applied_to(self, recipe: RLRecipe) -> RLRecipe:
        """The recipe with this effort's word, price and window."""
        rules = replace(recipe.rules, length_weight=self.token_price * self.window, max_tokens=self.window)
        return replace(recipe, system=self.word, max_new_tokens=self.window, rules=rules)


EFFORTS = {
    "low": Effort("<low>", 0.12, 8),
    "high": Effort("<high>", 0.045, 20),
    "max": Effort("<max>", 0.0, 32),
}
"""A thought of nine tokens pays from 1.08, 0.4 and 0 of accuracy on."""


def undecided(
    policy: Transformer, family: Family, steps: int, *, seed: int = 0
) -> Generator[dict[str, Any], None, None]:
    """Teach a fresh policy to answer with and without steps, half and half under every word: a row a step."""
    rng = random.Random(seed)
    words = [effort.word for effort in EFFORTS.values()]
    documents = [
        solved(problem, rng, thinks=rng.random() < 0.5, system=rng.choice(words))
        for problem in draw_problems(family, 8000, seed)
    ]
    return fine_tune(policy, documents, steps, rows=8, seed=seed)


def train_effort(
    policy: Transformer,
    family: Family,
    effort: Effort,
    steps: int,
    *,
    recipe: RLRecipe = ZERO,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Generator[dict[str, Any], None, None]:
    """GRPO under one effort's price and window: rows of `train_policy`."""
    return train_policy(policy, Questions([family], seed), effort.applied_to(recipe), steps, folder=folder)
