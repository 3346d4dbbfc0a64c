"""Muon: momentum, made orthogonal, for the matrices of a network.

For every independent matrix W of n x m, with its gradient G:

    M <- μ M + G                               momentum
    O <- orthogonalise(μ M + G)                Nesterov's look ahead, then all singular values to 1
    W <- (1 - η λ) W - η γ √max(n, m) O        decay, then a step whose numbers have RMS γ

An orthogonal n x m matrix has RMS 1/√max(n, m), so γ is the size of the update in every shape: AdamW's
learning rates can be kept.

Report: section 2.4, Algorithm 1. μ = 0.95, λ = 0.1, γ = 0.18.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from einops import rearrange
from torch import Tensor

from workbench.training.newton_schulz import HYBRID, Coefficients, orthogonalise


class Muon(torch.optim.Optimizer):
    """Muon as the report prints it; matrices of one shape are made orthogonal in one batched product.

    A parameter may stack several independent matrices: leading axes are stacks, and a group's `parts`
    cuts the rows of each into so many (gate and up of an expert, the groups of the output map).

    Args:
        params: parameters or groups of them; a group may set every option and `parts`.
        update_rms: γ.
        steps: coefficients of the Newton-Schulz steps.
        dtype: of the Newton-Schulz products.

    Raises:
        ValueError: a parameter that is no matrix or stack of matrices, or rows that do not divide into
            `parts`, or an option out of range.
    Source: V4 report, Algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        update_rms: float = 0.18,
        steps: Coefficients = HYBRID,
        dtype: torch.dtype = torch.float32,
    ):
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError(
                f"Muon: got lr={lr}, momentum={momentum}, weight_decay={weight_decay}; needs lr and "
                f"weight_decay >= 0 and 0 <= momentum < 1; correct the one outside"
            )
        defaults = dict(
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            update_rms=update_rms,
            steps=steps,
            dtype=dtype,
            parts=1,
        )
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim < 2 or p.shape[-2] % group["parts"]:
                    raise ValueError(
                        f"Muon: got a parameter of shape {tuple(p.shape)} with parts={group['parts']}; needs "
                        f"matrices whose rows divide into the parts; give vectors to AdamW"
                    )

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step for every parameter with a gradient. `closure` computes the loss again, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step(group)
        return loss

    @torch.no_grad()
    def _step(self, group: dict[str, Any]) -> None:
        found = [p for p in group["params"] if p.grad is not None]
        ahead = [self._look_ahead(p, group["momentum"]) for p in found]
        for p, update in zip(found, self._updates(found, ahead, group), strict=True):
            n, m = p.shape[-2] // group["parts"], p.shape[-1]
            scale = group["lr"] * group["update_rms"] * max(n, m) ** 0.5
            self._own(p).mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _look_ahead(self, p: Tensor, momentum: float) -> Tensor:
        """Step the momentum; what is to be made orthogonal."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        gradient = self._own(p.grad)
        stepped = self._own(state["momentum"]).mul_(momentum).add_(gradient)
        return gradient.add(stepped, alpha=momentum)

    def _own(self, x: Any) -> Tensor:
        """What this process holds of a parameter, its gradient or momentum."""
        assert isinstance(x, Tensor)
        return x

    def _updates(self, found: list[Tensor], ahead: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Every parameter's look ahead, its matrices made orthogonal."""
        return orthogonal(ahead, group)


def orthogonal(found: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """The matrices of each tensor made orthogonal, those of one shape in one batched product."""
    by_shape: dict[tuple[int, int], list[tuple[int, Tensor]]] = defaultdict(list)
    for i, x in enumerate(found):
        stack = matrices(x, group["parts"])
        by_shape[stack.shape[1], stack.shape[2]].append((i, stack))
    made = list(found)
    for stacks in by_shape.values():
        updates = orthogonalise(torch.cat([x for _, x in stacks]), group["steps"], group["dtype"])
        for (i, _), update in zip(stacks, updates.split([len(x) for _, x in stacks]), strict=True):
            made[i] = update.reshape(found[i].shape)
    return made


def matrices(x: Tensor, parts: int = 1) -> Tensor:
    """The independent matrices that a parameter stacks.

    Shapes: (..., parts·n, m) -> (count, n, m), in an order that a plain reshape undoes.
    """
    return rearrange(x.reshape(-1, *x.shape[-2:]), "count (parts n) m -> (count parts) n m", parts=parts)
