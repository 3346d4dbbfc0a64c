"""Which experts served each token of a rollout, for the training pass to use the same ones.

Sampler and trainer round differently, and a token near the border between two experts may then be served
by another one: its probability jumps. Replaying the sampler's choices removes that.

Report: DeepSeek-V3.2 (arXiv 2512.02556), "keep routing". Axes: t tokens, l learned routers, k experts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.model import Transformer
from workbench.training.routing import learned_routers


@contextmanager
def recorded(policy: Transformer) -> Iterator[list[list[Tensor]]]:
    """Within, every learned router adds the experts (t, k) it chose in a pass to its list."""
    routers = learned_routers(policy)
    seen: list[list[Tensor]] = [[] for _ in routers]

    def note(own: list[Tensor]) -> Any:
        def look(_: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
            own.append(output[1])

        return look

    hooks = [router.register_forward_hook(note(own)) for router, own in zip(routers, seen, strict=True)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replayed(policy: Transformer, routes: Sequence[Tensor] | None) -> Iterator[None]:
    """Within, the learned routers use these experts, weighted by today's affinities. None: as they choose.

    Args:
        routes: of each learned router, (t, k), t the tokens of one pass.

    Raises:
        ValueError: the model runs on another number of tokens.
    """
    routers = learned_routers(policy) if routes is not None else []
    try:
        for router, experts in zip(routers, routes or [], strict=True):
            # An attribute of the object goes before the method of its class.
            vars(router)["_choose"] = _Replay(experts)
        yield
    finally:
        for router in routers:
            vars(router).pop("_choose", None)


class _Replay:
    """Stands for `Router._choose`."""

    def __init__(self, experts: Tensor):
        self.experts = experts

    def __call__(self, affinity: Tensor, token_ids: Tensor) -> Tensor:
        if len(affinity) != len(self.experts):
            raise ValueError(
                f"replayed: got {len(affinity)} tokens; routes were recorded for {len(self.experts)}; read "
                f"the same tokens both times"
            )
        return self.experts


def pad_routes(routes: Sequence[Tensor], width: int) -> list[Tensor]:
    """Routes of rows, each (s_i, l, k), as one (rows·width, k) for each router. Padding takes experts 0..k-1:
    distinct ones, as everywhere.
    """
    l, k = routes[0].shape[1:]  # noqa: E741 - the axis letter
    padded = torch.arange(k).expand(len(routes), width, l, k).clone()
    for row, own in enumerate(routes):
        padded[row, : len(own)] = own
    return [padded[:, :, i].reshape(-1, k) for i in range(l)]
