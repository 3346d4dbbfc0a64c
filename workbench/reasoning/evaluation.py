"""A policy on held-out problems: which answers are right, how long they are, how sure it was.

Axes: p problems, n answers to each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.model import Sampling, Transformer
from workbench.reasoning.completions import prompt_ids, read_completion
from workbench.reasoning.measures import Interval, bootstrap, majority_at_k, mean_pass_at_k
from workbench.reasoning.rollout import FREE, Rollouts, sample
from workbench.reasoning.tasks.problem import Problem
from workbench.reasoning.vocabulary import VOCABULARY


@dataclass(frozen=True)
class Evaluation:
    """What a policy answered. Tables have a row a problem and a column an answer."""

    problems: list[Problem]
    rollouts: Rollouts
    is_right: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    thinks: NDArray[np.bool_]
    stopped: NDArray[np.bool_]

    @property
    def accuracy(self) -> Interval:
        """pass@1 with an interval over problems."""
        return bootstrap(self.is_right.mean(axis=1))

    @property
    def mean_tokens(self) -> float:
        return float(self.tokens.mean())

    def pass_at(self, k: int) -> Interval:
        """The chance that one of k answers is right, with an interval over problems."""
        return bootstrap(mean_pass_at_k(self.is_right, k))

    def majority_at(self, k: int, *, subsets: int = 8, seed: int = 0) -> Interval:
        """How often the most frequent of k answers is right."""
        checks = [problem.verify for problem in self.problems]
        shares = majority_at_k(self.answers, checks, k, subsets=subsets, seed=seed)  # type: ignore[arg-type]
        return bootstrap(shares)

    @property
    def answers(self) -> list[list[str | None]]:
        """The answers as text; None where the form was not kept."""
        flat = [read_completion(row).answer for row in self.rollouts.tokens]
        n = self.rollouts.group_size
        return [flat[begin : begin + n] for begin in range(0, len(flat), n)]

    def by_level(self) -> dict[int, Interval]:
        """Accuracy at each level of difficulty."""
        levels = np.array([problem.level for problem in self.problems])
        share = self.is_right.mean(axis=1)
        return {int(level): bootstrap(share[levels == level]) for level in sorted(set(levels.tolist()))}

    def confidence(self) -> NDArray[np.float64]:
        """The probability of each whole answer, thinking included, by the sampler: (p, n)."""
        sums = np.array([sum(row) for row in self.rollouts.logprobs])
        return np.exp(sums).reshape(self.is_right.shape)

    def text(self, problem: int, answer: int = 0) -> str:
        """What was written, in words."""
        return VOCABULARY.decode(self.rollouts.tokens[problem * self.rollouts.group_size + answer])


def evaluate(
    policy: Transformer,
    problems: Sequence[Problem],
    *,
    answers: int = 1,
    max_new_tokens: int = 32,
    sampling: Sampling = FREE,
    seed: int = 0,
    system: str = "",
) -> Evaluation:
    """Draw answers to problems and check them. The policy is left in the mode it was in."""
    was_training = policy.training
    policy.eval()
    rollouts = sample(
        policy,
        [prompt_ids(problem, system) for problem in problems],
        answers,
        max_new_tokens,
        sampling=sampling,
        seed=seed,
    )
    policy.train(was_training)
    shape = (len(problems), answers)
    completions = [read_completion(row) for row in rollouts.tokens]
    right = [
        c.answer is not None and problems[row // answers].verify(c.answer)
        for row, c in enumerate(completions)
    ]
    return Evaluation(
        list(problems),
        rollouts,
        np.array(right).reshape(shape),
        np.array([len(row) for row in rollouts.tokens]).reshape(shape),
        np.array([c.thinking is not None for c in completions]).reshape(shape),
        np.array(rollouts.stopped).reshape(shape),
    )
