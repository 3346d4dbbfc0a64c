"""Muon where every weight is cut over the processes: each matrix is made orthogonal by one of them.

FSDP2 cuts a matrix by its rows, and so momentum and gradient too; Newton-Schulz needs all of it. So:

    1. each process steps the momentum of its rows
    2. all-to-all: the rows of every matrix go to its owner
    3. the owner makes its matrices orthogonal, those of one shape in one batched product
    4. all-to-all: the rows of the updates go back, and each process applies its own

Owners are dealt like a knapsack (zero_buckets.py), so that all have about as much to do. Experts are cut
between matrices and need no trip.

Report: section 3.5.1. Departs: there each rank keeps whole matrices and the updates are all-gathered, which
moves as many numbers; here FSDP2 keeps the rows, so that gathering weights, saving and loading are its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from workbench.training.distributed.exchange import exchange
from workbench.training.muon import Muon, orthogonal
from workbench.training.zero_buckets import pack


class ShardedMuon(Muon):
    """`Muon` on parameters that FSDP2 has cut: matrices by rows, stacks of matrices between matrices."""

    def _own(self, x: Any) -> Tensor:
        own = x.to_local() if isinstance(x, DTensor) else x
        assert isinstance(own, Tensor)
        return own

    def _updates(self, found: list[Tensor], ahead: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        cut = [i for i, p in enumerate(found) if p.ndim == 2]
        stacks = [i for i, p in enumerate(found) if p.ndim > 2]
        trip = Trip([found[i] for i in cut], [ahead[i] for i in cut]) if cut else None
        whole = trip.to_owners() if trip else []
        made = orthogonal([*whole, *(ahead[i] for i in stacks)], group)
        back = trip.from_owners(made[: len(whole)]) if trip else []
        by_number = dict(zip([*cut, *stacks], [*back, *made[len(whole) :]], strict=True))
        return [by_number[i] for i in range(len(found))]


class Trip:
    """The rows of matrices on their way from all processes to the owners, and back.

    Args:
        parameters: the cut matrices, distributed tensors of one mesh.
        own: this process's rows of something of their shapes.
    """

    def __init__(self, parameters: Sequence[Tensor], own: Sequence[Tensor]):
        first = parameters[0]
        assert isinstance(first, DTensor)
        mesh = first.device_mesh
        self.group, self.n, me = mesh.get_group(), mesh.size(), mesh.get_local_rank()
        self.own, self.shapes = own, [tuple(p.shape) for p in parameters]
        buckets = pack([p.numel() for p in parameters], min(self.n, len(parameters))).ranks
        buckets = (*buckets, *[()] * (self.n - len(buckets)))
        self.mine, self.order = buckets[me], [i for bucket in buckets for i in bucket]
        # How many numbers each owner gets from this process, and this owner from each process.
        self.sent = [sum(own[i].numel() for i in bucket) for bucket in buckets]
        self.owned = [sum(self._numbers(i, rank) for i in self.mine) for rank in range(self.n)]

    def _rows(self, i: int, rank: int) -> tuple[int, int]:
        """The first and the end of the rows of a matrix that a process has: as torch.chunk cuts."""
        n_rows = self.shapes[i][0]
        step = -(-n_rows // self.n)
        return min(rank * step, n_rows), min((rank + 1) * step, n_rows)

    def _numbers(self, i: int, rank: int) -> int:
        begin, end = self._rows(i, rank)
        return (end - begin) * int(self.shapes[i][1])

    def to_owners(self) -> list[Tensor]:
        """The matrices that this process owns, whole."""
        line = torch.cat([self.own[i].flatten() for i in self.order])
        came = exchange(line, self.sent, self.owned, self.group).split(self.owned)
        pieces = [part.split([self._numbers(i, rank) for i in self.mine]) for rank, part in enumerate(came)]
        return [
            torch.cat([piece[place] for piece in pieces]).view(self.shapes[i])
            for place, i in enumerate(self.mine)
        ]

    def from_owners(self, updates: Sequence[Tensor]) -> list[Tensor]:
        """This process's rows of all updates, in the order of the parameters."""
        parts = [
            update[slice(*self._rows(i, rank))].flatten()
            for rank in range(self.n)
            for i, update in zip(self.mine, updates, strict=True)
        ]
        line = torch.cat(parts) if parts else self.own[0].new_empty(0)
        came = exchange(line, self.owned, self.sent, self.group)
        pieces = came.split([self.own[i].numel() for i in self.order])
        by_number = dict(zip(self.order, pieces, strict=True))
        return [by_number[i].view(x.shape) for i, x in enumerate(self.own)]
