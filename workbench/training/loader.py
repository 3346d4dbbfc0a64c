"""Batches of packed rows, in an order that a seed and a position in the run determine.

Axes: b rows, s tokens of a row.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from workbench.model.loss import IGNORED
from workbench.training.packing import Piece, best_fit


class Batch(NamedTuple):
    """What `Transformer.loss` takes. Padding is a sample of its own, with labels that carry no loss.

    Shapes: all (b, s).
    """

    input_ids: Tensor
    sample_ids: Tensor
    labels: Tensor


class Loader:
    """An endless stream of rows, reshuffled every epoch.

    Which rows come at a place in the stream depends on the seed alone, not on how they are grouped into
    batches; `position` is that place, and setting it resumes the stream there. `skipped` more rows are left
    out: a run that goes back behind bad data goes on behind it.

    Args:
        documents: token ids of each document.
        row_tokens: length of a row.
        labels: of each document's tokens, -100 for those that carry no loss; its ids if None.

    Raises:
        ValueError: as `packing.best_fit`, or labels of other lengths than the documents.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int]],
        row_tokens: int,
        seed: int,
        labels: Sequence[Sequence[int]] | None = None,
    ):
        lengths = [len(document) for document in documents]
        labels = documents if labels is None else labels
        if lengths != [len(own) for own in labels]:
            raise ValueError(
                f"Loader: got labels for {len(labels)} documents and {sum(map(len, labels))} tokens; needs "
                f"one for each of {sum(lengths)} tokens of {len(documents)} documents; pad with {IGNORED}"
            )
        self.rows = _tensors(documents, labels, best_fit(lengths, row_tokens), row_tokens)
        self.seed, self.position, self.skipped = seed, 0, 0
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Rows of one epoch."""
        return len(self.rows.input_ids)

    @property
    def checksum(self) -> int:
        """Tells other rows from these: a resumed run must read the same."""
        return reduce(lambda found, x: crc32(x.numpy().tobytes(), found), self.rows, 0)

    def take(self, n_rows: int) -> Batch:
        """The next rows. An epoch's last rows and the next one's first may share a batch."""
        batch = self.peek(n_rows)
        self.position += n_rows
        return batch

    def peek(self, n_rows: int, ahead: int = 0) -> Batch:
        """The rows that come after the next `ahead` rows; the stream stays where it is."""
        begin = self.position + self.skipped + ahead
        chosen = torch.tensor([self._row(place) for place in range(begin, begin + n_rows)])
        return Batch(*(x[chosen] for x in self.rows))

    def _row(self, place: int) -> int:
        epoch, index = divmod(place, len(self))
        if self._order is None or self._order[0] != epoch:
            # torch's generators look at 32 bits of a seed; numpy's mix all numbers they are given.
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self))
        return int(self._order[1][index])


def _tensors(
    documents: Sequence[Sequence[int]],
    own_labels: Sequence[Sequence[int]],
    packed: Sequence[Sequence[Piece]],
    row_tokens: int,
) -> Batch:
    ids = torch.zeros(len(packed), row_tokens, dtype=torch.long)
    samples = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, pieces in enumerate(packed):
        at = 0
        for sample, piece in enumerate(pieces):
            end = at + piece.end - piece.begin
            tokens = slice(piece.begin, piece.end)
            ids[row, at:end] = torch.tensor(documents[piece.document][tokens])
            labels[row, at:end] = torch.tensor(own_labels[piece.document][tokens])
            samples[row, at:end] = sample
            at = end
        samples[row, at:] = len(pieces)
    return Batch(ids, samples, labels)
