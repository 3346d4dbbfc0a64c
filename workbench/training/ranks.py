"""How the processes of a run share its work; here, for a run of one process, everything is its own.

The loop asks a `Ranks` for what differs between one process and many, and for nothing else; many
processes are `distributed.process_ranks.ProcessRanks`.

Axes: b rows, s tokens of a row, e experts.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.training.loader import Batch
from workbench.training.muon import Muon

STATE = "state.safetensors"


class Ranks:
    """One process. `n_context` processes share each row's tokens; `is_first` is true of one process."""

    n_ranks = 1
    n_context = 1
    rank = 0
    is_first = True
    muon: type[Muon] = Muon

    def own_rows(self, batch: Batch) -> Batch:
        """The rows of a step's batch that this process reads."""
        return batch

    def total(self, x: Tensor) -> Tensor:
        """The sum of every process's x, without gradient."""
        return x

    def whole_rows(self, x: Tensor) -> Tensor:
        """All tokens of rows that several processes share; gradients find their way back.

        Shapes: (b, s / n_context, e) -> (b, s, e).
        """
        return x

    def clip(self, model: nn.Module, largest: float) -> float:
        """Scale the gradients down to a norm of all of them together; returns the norm before."""
        return float(nn.utils.clip_grad_norm_(model.parameters(), largest))

    def write(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """Write a run's tensors into a folder, each process what it holds."""
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / STATE)

    def merged(self, own: dict[str, Any]) -> dict[str, Any]:
        """The entries of every process's dictionary."""
        return own

    def wait(self) -> None:
        """Until every process has come here."""


ALONE = Ranks()
