"""Many domains of one kind that contradict each other, and the plain ways to make one model of many.

A word before the question says which rule holds. The questions look alike, so what is right under one tag is
wrong under another: a model must keep the domains apart, which averaging weights does not do by itself.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workbench.model import Transformer
from workbench.reasoning.tasks import Family, ModularChain, Solution
from workbench.reasoning.vocabulary import CHINESE, NODES

TAGS = (*NODES, *CHINESE)


@dataclass(frozen=True)
class Tagged:
    """A family whose questions begin with a word of their own."""

    family: Family
    tag: str

    @property
    def name(self) -> str:
        return f"{self.tag}: {self.family.name}"

    @property
    def levels(self) -> tuple[int, ...]:
        return self.family.levels

    def draw(self, rng: random.Random, level: int) -> str:
        return f"{self.tag} {self.family.draw(rng, level)}"

    def solve(self, question: str, rng: random.Random) -> Solution:
        return self.family.solve(self._inner(question), rng)

    def verify(self, question: str, answer: str) -> bool:
        return self.family.verify(self._inner(question), answer)

    def key(self, question: str) -> str:
        return f"{self.tag} {self.family.key(self._inner(question))}"

    def _inner(self, question: str) -> str:
        return question.split(maxsplit=1)[1]


def conflicting_chains(count: int, operations: int = 3) -> list[Tagged]:
    """Chains of sums modulo 3, of differences modulo 3, of sums modulo 4, ..., each under its own tag.

    Raises:
        ValueError: more domains than tags, or none.
    """
    if not 1 <= count <= len(TAGS):
        raise ValueError(
            f"conflicting_chains: got count={count}; needs 1 to {len(TAGS)}, a word for each; ask for fewer"
        )
    levels = tuple(range(max(operations - 1, 1), operations + 1))
    return [
        Tagged(
            ModularChain(modulus=3 + i // 2, operations=operations, signs="+-"[i % 2], levels=levels), TAGS[i]
        )
        for i in range(count)
    ]


def average(policies: Sequence[Transformer]) -> Transformer:
    """A policy whose every weight is the mean of the others' (a "model soup").

    Raises:
        ValueError: no policies, or of different configurations.
    """
    if not policies or any(policy.config != policies[0].config for policy in policies):
        raise ValueError(
            f"average: got {len(policies)} policies; needs one or more of one configuration; only equal "
            f"shapes can be averaged"
        )
    merged = copy.deepcopy(policies[0])
    states = [policy.state_dict() for policy in policies]
    with torch.no_grad():
        for name, own in merged.state_dict().items():
            stacked = torch.stack([state[name] for state in states])
            own.copy_(stacked.mean(dim=0) if own.is_floating_point() else stacked[0])
    return merged
