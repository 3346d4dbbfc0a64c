"""What the routers of a network did in a training step, for the two rules that keep experts balanced.

Report: section 2.1 and section 4.2.2 (bias step 0.001, sequence balance weight 0.0001).
Axes: b rows, s tokens, t tokens of all rows, e experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from workbench.model import Transformer
from workbench.model.balance import sequence_balance_loss, update_bias
from workbench.model.experts import HashRouter, Router
from workbench.training.ranks import ALONE, Ranks


def learned_routers(model: nn.Module) -> list[Router]:
    """The routers that choose by affinity, those of MTP blocks included, in the order of the model."""
    return [m for m in model.modules() if isinstance(m, Router) and not isinstance(m, HashRouter)]


class Routing:
    """Watches the learned routers of a model while it is entered.

    Hash routers have nothing to balance. Activations must not be recomputed while it watches: a router
    that runs twice would count twice.
    """

    def __init__(self, model: Transformer, ranks: Ranks = ALONE):
        self.ranks = ranks
        self.routers = learned_routers(model)
        self._is_paused = False
        self._counts = {router: torch.zeros(len(router.weight)) for router in self.routers}
        self._seen: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> Self:
        self._hooks = [router.register_forward_hook(self._note) for router in self.routers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, router: nn.Module, inputs: tuple[Tensor, Any], output: tuple[Tensor, Tensor]) -> None:
        assert isinstance(router, Router)
        if self._is_paused:
            return
        experts = output[1]
        self._seen.append((router.affinity(inputs[0]), experts))
        self._counts[router] += torch.bincount(experts.flatten().cpu(), minlength=len(router.weight))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, what the routers do does not count."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def balance_loss(self, rows: int) -> Tensor:
        """The mean over rows of Σ_e f_e P_e, summed over the routers, since this was last asked.

        A row counts as one sequence, also where it packs several samples. Processes that share the tokens
        of a row each return the same share of it.
        """
        losses = [
            sequence_balance_loss(
                *(self.ranks.whole_rows(x.unflatten(0, (rows, -1))) for x in (affinity, experts))
            ).mean()
            for affinity, experts in self._seen
        ]
        self._seen.clear()
        return torch.stack(losses).sum() / self.ranks.n_context if losses else torch.zeros(())

    def update_biases(self, bias_step: float) -> float:
        """Step every router's bias; returns the largest load of any expert, over the mean."""
        largest = 1.0
        for router, counts in self._counts.items():
            counts_of_all = self.ranks.total(counts)
            load = counts_of_all / counts_of_all.mean()
            update_bias(router, load.to(router.weight.device), bias_step)
            largest = max(largest, float(load.max()))
            counts.zero_()
        return largest
