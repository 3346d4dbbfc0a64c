"""What a distillation run used: teacher tokens, and work in FLOP by the usual count.

A token through a network of N active parameters takes 2 N FLOP forward and 4 N backward. Drawing reads the
prompt and writes the answer; scoring and training read both. A teacher that drew a text is not charged again
for saying what it thought of it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from workbench import accounting
from workbench.model import Transformer
from workbench.reasoning.rollout import Rollouts


class Spending:
    """Running totals of one run; they travel in its checkpoints."""

    def __init__(self) -> None:
        self.teacher_tokens = 0
        self.flop = 0
        self._active: dict[int, int] = {}

    def draw(self, author: Transformer, drawn: Rollouts, *, is_teacher: bool) -> None:
        """An author wrote these answers."""
        self.flop += 2 * self._parameters(author) * n_read(drawn, range(len(drawn)))
        if is_teacher:
            self.teacher_tokens += drawn.n_tokens

    def score(self, teacher: Transformer, rollouts: Rollouts, rows: Sequence[int]) -> None:
        """A teacher read answers of another."""
        self.flop += 2 * self._parameters(teacher) * n_read(rollouts, rows)
        self.teacher_tokens += sum(len(rollouts.tokens[row]) for row in rows)

    def train(self, student: Transformer, rollouts: Rollouts, rows: Sequence[int]) -> None:
        """The student learnt from these answers, forward and backward."""
        self.flop += 6 * self._parameters(student) * n_read(rollouts, rows)

    def _parameters(self, policy: Transformer) -> int:
        if id(policy) not in self._active:
            self._active[id(policy)] = accounting.parameters(policy.config).active
        return self._active[id(policy)]

    @property
    def row(self) -> dict[str, int]:
        return {"teacher_tokens": self.teacher_tokens, "flop": self.flop}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: torch.tensor(total) for name, total in self.row.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self.teacher_tokens, self.flop = int(tensors["teacher_tokens"]), int(tensors["flop"])


def n_read(rollouts: Rollouts, rows: Sequence[int]) -> int:
    """The tokens of some rows, prompts and answers."""
    return sum(len(rollouts.prompt(row)) + len(rollouts.tokens[row]) for row in rows)
