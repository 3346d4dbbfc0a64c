"""What many teachers say about a batch, kept as hidden states; one teacher's head is in memory at a time.

Logits of a row cost its tokens times the vocabulary. The last hidden states cost tokens times hidden_size,
and the head turns them into the same logits when the loss is due. A batch is read teacher by teacher, so
every head is loaded once.

Report: V4 section 5.2.2. Axes: t tokens of one row's answer, d hidden_size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.model import Transformer
from workbench.reasoning.rollout import Rollouts, padded_rows


def answer_states(policy: Transformer, rollouts: Rollouts, rows: Sequence[int]) -> Tensor:
    """The last hidden states that predict the answers' tokens, row after row: (all t, d)."""
    ids, is_answer = padded_rows(rollouts, rows, policy.device)
    x: Tensor = policy.model.collapse(policy.streams(ids[:, :-1]))
    return x[is_answer[:, 1:]]


@dataclass
class Heads:
    """Output heads in storage, of which one is in memory: `heads[name]` loads it unless it is there."""

    load: Mapping[str, Callable[[], Tensor]]
    loads: int = 0
    resident: str | None = None
    _weight: Tensor | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Tensor:
        if self.resident != name or self._weight is None:
            self._weight, self.resident = self.load[name](), name
            self.loads += 1
        return self._weight


@dataclass
class TeacherStates:
    """Hidden states of teachers on rows of one rollout.

    Args:
        dtype: what they are kept in; the teacher's own if None.
    """

    dtype: torch.dtype | None = None
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def read(self, name: str, teacher: Transformer, rollouts: Rollouts, rows: Sequence[int]) -> None:
        """Let a teacher read rows, and keep its states of their answers."""
        states = answer_states(teacher, rollouts, rows).to(self.dtype or teacher.dtype)
        lengths = [len(rollouts.tokens[row]) for row in rows]
        for row, own in zip(rows, states.split(lengths), strict=True):
            self.kept[name, row] = own

    @property
    def n_bytes(self) -> int:
        return sum(own.numel() * own.element_size() for own in self.kept.values())

    def logit_bytes(self, vocabulary: int) -> int:
        """What the logits of the same tokens would take in the same numbers."""
        return sum(len(own) * vocabulary * own.element_size() for own in self.kept.values())

    def by_teacher(self) -> Iterator[tuple[str, list[int], Tensor]]:
        """Each teacher once, with its rows and their states one after another: (name, rows, (all t, d))."""
        for name in sorted({name for name, _ in self.kept}):
            rows = sorted(row for own, row in self.kept if own == name)
            yield name, rows, torch.cat([self.kept[name, row] for row in rows])
