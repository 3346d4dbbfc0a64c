"""Anticipatory Routing: a step's tokens go to the experts that older weights chose for them.

    features of step t        weights θ_t
    expert indices of step t  weights θ_(t - delay)

Outliers in the experts and the routers that favour them can feed each other; with indices that lag, a
step's update cannot change where its own tokens go. The mixture weights of the chosen experts stay today's,
so routers go on learning. Today's weights read the batch that comes `delay` steps later, and the indices
wait: no older weights are kept.

Report: section 4.2.3. It prints neither the lag nor how long the mode stays on. In the first `delay` steps
that are covered no older choice exists; they take those of the first step's weights, which is ours.

Axes: t tokens of a batch, k chosen experts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.model import Transformer
from workbench.training.routing import learned_routers


class AnticipatoryRouting:
    """Routes the steps from `begin` up to but not including `end` (None: for ever) by older choices.

    Step t takes the choices of the weights before step max(begin, t - delay), or of the step at which it
    was first asked if that was later. `choices` holds, for each step prepared and not yet past, the
    experts (t, k) by the number of the learned router. Hash routers choose by token id alone.

    Raises:
        ValueError: delay below 1.
    """

    def __init__(self, model: Transformer, delay: int, *, begin: int = 0, end: int | None = None):
        if delay < 1:
            raise ValueError(
                f"AnticipatoryRouting: got delay={delay}; needs 1 step or more; leave it out for none"
            )
        self.routers = learned_routers(model)
        self.delay, self.begin, self.end = delay, begin, end
        self.choices: dict[int, dict[int, Tensor]] = {}

    def covers(self, step: int) -> bool:
        return self.begin <= step and (self.end is None or step < self.end)

    def prepare(self, step: int, read: Callable[[int], None]) -> None:
        """Before a step: let today's weights choose for the steps to come.

        Args:
            read: runs the model on all tokens of a later step's batch, in order.
        """
        self.choices = {later: choice for later, choice in self.choices.items() if later >= step}
        if not self.covers(step):
            return
        # Steps further on than step + delay are not known yet; nearer ones were prepared earlier, or now.
        for later in range(step, step + self.delay + 1):
            if later not in self.choices and self.covers(later):
                self.choices[later] = self._watch(read, later)

    @torch.no_grad()
    def _watch(self, read: Callable[[int], None], later: int) -> dict[int, Tensor]:
        seen: dict[int, list[Tensor]] = {}

        def note(number: int) -> Callable[..., None]:
            def look(_: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
                seen.setdefault(number, []).append(output[1])

            return look

        hooks = [router.register_forward_hook(note(i)) for i, router in enumerate(self.routers)]
        try:
            read(later)
        finally:
            for hook in hooks:
                hook.remove()
        return {number: torch.cat(parts) for number, parts in seen.items()}

    @contextmanager
    def routed(self, step: int, first_row: int, rows: int) -> Iterator[None]:
        """Within, the routers choose what was prepared for these rows of a step; nothing changes if none was.

        Raises:
            ValueError: when the model runs on another number of tokens than was prepared.
        """
        found = self.choices.get(step, {})
        try:
            for number, choice in found.items():
                # An attribute of the object goes before the method of its class.
                vars(self.routers[number])["_choose"] = _Prepared(choice, first_row, rows)
            yield
        finally:
            for number in found:
                vars(self.routers[number]).pop("_choose", None)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{step}.{number}": experts
            for step, choice in self.choices.items()
            for number, experts in choice.items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self.choices = {}
        for name, experts in tensors.items():
            step, number = map(int, name.split("."))
            device = self.routers[number].weight.device
            self.choices.setdefault(step, {})[number] = experts.to(device)


class _Prepared:
    """Stands for `Router._choose`."""

    def __init__(self, experts: Tensor, first_row: int, rows: int):
        self.experts, self.first_row, self.rows = experts, first_row, rows

    def __call__(self, affinity: Tensor, token_ids: Tensor) -> Tensor:
        row_tokens = len(affinity) // self.rows
        begin = self.first_row * row_tokens
        if (self.first_row + self.rows) * row_tokens > len(self.experts):
            raise ValueError(
                f"AnticipatoryRouting: got {len(affinity)} tokens in {self.rows} rows from row "
                f"{self.first_row} on; choices were prepared for {len(self.experts)} tokens; read the same "
                f"batch both times"
            )
        return self.experts[begin : begin + len(affinity)]
