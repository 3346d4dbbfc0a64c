"""The processes of a run, who shares what with whom, and the sums they take together.

`n_context` neighbouring processes share each row's tokens; rows are dealt to the groups of such
neighbours. `n_expert` neighbouring processes hold the experts together. Weights, gradients and optimiser
states are cut over all processes.

    process            0  1  2  3  4  5  6  7        n_context = 2, n_expert = 4
    rows of group      0  0  1  1  2  2  3  3
    tokens of a row    0  1  0  1  0  1  0  1
    experts            0  1  2  3  0  1  2  3

Axes: b rows, s tokens of a row, e experts.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from workbench.training.distributed.exchange import gather
from workbench.training.distributed.files import write_tensors
from workbench.training.distributed.muon import ShardedMuon
from workbench.training.loader import Batch
from workbench.training.ranks import Ranks


class ProcessRanks(Ranks):
    """All processes of torch.distributed's default group, which must be there.

    Raises:
        ValueError: the processes do not divide into groups of n_context or n_expert.
    """

    muon = ShardedMuon

    def __init__(self, device: str = "cpu", *, n_context: int = 1, n_expert: int = 1):
        self.n_ranks = dist.get_world_size()
        for name, size in (("n_context", n_context), ("n_expert", n_expert)):
            if size < 1 or self.n_ranks % size:
                raise ValueError(
                    f"ProcessRanks: got {name}={size} for {self.n_ranks} processes; needs a divisor of their "
                    f"number; start another number of processes or change {name}"
                )
        self.device, self.n_context, self.n_expert = device, n_context, n_expert
        self.rank, self.is_first = dist.get_rank(), dist.get_rank() == 0
        self.everyone = init_device_mesh(device, (self.n_ranks,), mesh_dim_names=("everyone",))
        rows = init_device_mesh(
            device, (self.n_ranks // n_context, n_context), mesh_dim_names=("rows", "tokens")
        )
        self.experts = init_device_mesh(
            device, (self.n_ranks // n_expert, n_expert), mesh_dim_names=("copies", "experts")
        )
        self.context_group = rows["tokens"].get_group()
        self.context_rank = self.rank % n_context

    def own_rows(self, batch: Batch) -> Batch:
        """The rows of this process's group.

        Raises:
            ValueError: the rows do not divide among the groups.
        """
        groups, rows = self.n_ranks // self.n_context, len(batch.input_ids)
        if rows % groups:
            raise ValueError(
                f"ProcessRanks: got a batch of {rows} rows for {groups} groups of processes; needs a "
                f"multiple of {groups}; change the batch or the number of processes"
            )
        begin = self.rank // self.n_context * (rows // groups)
        return Batch(*(x[begin : begin + rows // groups] for x in batch))

    def total(self, x: Tensor) -> Tensor:
        # Accelerators' libraries do not all add float64.
        x_here = x.detach().to(self.device, torch.float32 if self.device != "cpu" else x.dtype, copy=True)
        dist.all_reduce(x_here)
        return x_here.to(x.device, x.dtype)

    def whole_rows(self, x: Tensor) -> Tensor:
        if self.n_context == 1:
            return x
        return rearrange(gather(x, self.context_group), "p b s e -> b (p s) e")

    @torch.no_grad()
    def clip(self, model: nn.Module, largest: float) -> float:
        gradients = [
            p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad
            for p in model.parameters()
            if p.grad is not None
        ]
        squares = torch.stack([gradient.float().square().sum() for gradient in gradients])
        norm = self.total(squares.sum()).sqrt()
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        return float(norm)

    def write(self, tensors: dict[str, Tensor], folder: Path) -> None:
        write_tensors(tensors, folder)

    def merged(self, own: dict[str, Any]) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{}] * self.n_ranks
        dist.all_gather_object(parts, own)
        return {name: value for part in parts for name, value in part.items()}

    def wait(self) -> None:
        dist.barrier()
