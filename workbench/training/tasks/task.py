"""What a synthetic task is, how its documents are drawn, and how a model's answers are counted.

A task needs one ability and nothing else, so that its accuracy tells whether a network has it. Any object
with the members of `Task` is one.

Axes: b documents, s tokens, v vocabulary.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.model.loss import IGNORED


class Sample(NamedTuple):
    """One document: its tokens, and the places of those that the task asks for."""

    ids: list[int]
    answers: list[int]

    @property
    def labels(self) -> list[int]:
        """The ids where they are asked for, and no loss elsewhere."""
        asked = set(self.answers)
        return [token if place in asked else IGNORED for place, token in enumerate(self.ids)]


class Task(Protocol):
    """A generator of documents whose answers follow from what stands before them.

    chance: the accuracy of the best guesser that knows the task but does not read what asks: the key, the
        question, the tokens to be counted.
    """

    @property
    def vocab_size(self) -> int:
        """Ids 0 to vocab_size - 1 occur."""

    @property
    def chance(self) -> float: ...

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        """A new document. Held-out ones ask for nothing that a document to train on could have told."""

    def solve(self, ids: Sequence[int]) -> int:
        """The answer that follows these tokens, from the tokens alone."""


def draw_samples(task: Task, count: int, seed: int, *, is_held_out: bool = False) -> list[Sample]:
    """The same documents for the same arguments; held-out ones come from random numbers of their own.

    Raises:
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"draw_samples: got count={count}; needs 1 or more; ask for some documents")
    rng = random.Random(f"{type(task).__name__} {'held out' if is_held_out else 'train'} {seed}")
    return [task.draw(rng, is_held_out) for _ in range(count)]


@dataclass(frozen=True)
class Score:
    """How many of `asked` answers were the likeliest token, and the mean loss on them in nats."""

    right: int
    asked: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.right / self.asked


@torch.no_grad()
def score(
    model: Callable[[Tensor], Tensor], samples: Sequence[Sample], *, rows: int = 32, device: str = "cpu"
) -> Score:
    """Ask a model for every answer, the true tokens before it given.

    Documents of several lengths are padded behind their end, where no answer looks.

    Args:
        model: ids (b, s) -> logits (b, s, v) of the next token.
        rows: documents of one pass.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("score: got no samples; needs one or more; draw some with draw_samples")
    right, asked, loss = 0, 0, 0.0
    for begin in range(0, len(samples), rows):
        chunk = samples[begin : begin + rows]
        ids, labels = (
            pad_sequence([torch.tensor(x) for x in column], batch_first=True, padding_value=padding)
            for column, padding in (([s.ids for s in chunk], 0), ([s.labels for s in chunk], IGNORED))
        )
        target = labels[:, 1:].to(device)
        is_asked = target != IGNORED
        logits = model(ids.to(device))[:, :-1][is_asked].float()
        target = target[is_asked]
        right += int((logits.argmax(dim=-1) == target).sum())
        asked += len(target)
        loss += float(F.cross_entropy(logits, target, reduction="sum"))
    return Score(right, asked, loss / asked)
