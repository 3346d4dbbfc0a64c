"""How a policy is trained by reinforcement, and on which questions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from workbench.model import Sampling
from workbench.reasoning.losses import GRPO, LOSSES, PolicyLoss
from workbench.reasoning.rewards import Rules
from workbench.reasoning.rollout import FREE
from workbench.reasoning.tasks.problem import Family, Problem, draw_problems


@dataclass(frozen=True)
class RLRecipe:
    """How to train a policy: what must not change when a run is resumed.

    Args:
        questions, group_size: of a step; group_size answers to each question.
        minibatches: updates a step; with more than one, the later ones follow samples of older weights.
        rate: reached after `warmup_steps`. Above 3e-4 AdamW takes a small policy apart.
        optimizer: AdamW, or Muon for the matrices, which moves a small policy further before it falls apart.
        old: what ratios are measured against: "trainer", the training forward before the step's updates,
            or "sampler", the probabilities noted while sampling (V3.2).
        renew_reference: every so many steps the reference becomes the policy (R1: 400).
        most_draws: dynamic sampling (DAPO): up to so many rounds of questions until `questions` groups
            disagree within themselves. 1 takes the first round as it is.
        keep_routes: replay the experts of the sampler in training.
        system: words before every question.
    """

    loss: PolicyLoss = GRPO
    rules: Rules = field(default_factory=Rules)
    questions: int = 16
    group_size: int = 16
    max_new_tokens: int = 32
    sampling: Sampling = FREE
    minibatches: int = 1
    rate: float = 3e-4
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup_steps: int = 5
    clip_norm: float = 1.0
    old: Literal["trainer", "sampler"] = "trainer"
    renew_reference: int = 400
    most_draws: int = 1
    keep_routes: bool = False
    system: str = ""

    def __post_init__(self) -> None:
        if min(self.questions, self.minibatches, self.most_draws) < 1 or self.group_size < 2:
            raise ValueError(
                f"RLRecipe: got questions={self.questions}, group_size={self.group_size}, minibatches="
                f"{self.minibatches}, most_draws={self.most_draws}; needs 1 or more, groups of 2 or "
                f"more; correct the one below"
            )


R1_ZERO = RLRecipe(
    loss=LOSSES["R1"],
    rules=Rules(form_weight=1.0),
    questions=512,
    group_size=16,
    max_new_tokens=32_768,
    minibatches=16,
    rate=3e-6,
    renew_reference=25,
)
"""R1-Zero as published (arXiv 2501.12948): 8,192 answers a rollout, 16 updates of 32 questions from them; a
new reference every 400 updates. Its window doubles after 8,200 updates."""


class Questions:
    """Which problems come: of these families in turn, by a seed and a position in the run."""

    def __init__(self, families: Sequence[Family], seed: int, levels: Sequence[int] | None = None):
        self.families, self.seed, self.levels, self.position = list(families), seed, levels, 0

    def take(self, count: int) -> list[Problem]:
        """The next problems."""
        found = []
        for place in range(self.position, self.position + count):
            family = self.families[place % len(self.families)]
            found += draw_problems(family, 1, self.seed * 1_000_003 + place, levels=self.levels)
        self.position += count
        return found
