"""What serves and what is served: a pool of equal instances, and a request on its way through one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.chips.serving.pace import Pace
from workbench.chips.serving.paging import UNLIMITED, Paging

Order = Literal["prompts first", "in turn"]
ORDERS: tuple[Order, ...] = ("prompts first", "in turn")


@dataclass(frozen=True)
class Pool:
    """`instances` equal servers of `chips` chips each.

    chunk_tokens: new tokens of one prompt in a pass; `groups` attention groups compute a chunk each.
    order: "prompts first" starts a pass whenever a prompt can be admitted; "in turn" puts a decoding step
    between two passes, so that long prompts do not stop answers.

    Raises:
        ValueError: fewer than one instance, or an unknown order.
    """

    pace: Pace
    chips: float = 1.0
    instances: int = 1
    paging: Paging = UNLIMITED
    chunk_tokens: int = 8192
    groups: int = 1
    order: Order = "prompts first"

    def __post_init__(self) -> None:
        for name in ("instances", "chunk_tokens", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"Pool: {name} is {getattr(self, name)}; it must be 1 or more; change it")
        if self.order not in ORDERS:
            raise ValueError(f"Pool: order {self.order!r} is unknown; choose one of {ORDERS}")


class Job:
    """A request on its way: tokens in its cache when it began here, tokens to compute, steps to go."""

    __slots__ = (
        "admitted", "blocks", "context", "end_step", "growth", "index", "start_step", "steps", "to_compute",
    )  # fmt: skip

    def __init__(self, index: int, context: float, to_compute: int, steps: int, growth: float) -> None:
        self.index = index
        self.context = context  # tokens, once all of them are computed
        self.to_compute = to_compute
        self.steps = steps  # decoding steps to go
        self.growth = growth  # tokens a step
        self.admitted = 0  # place in the order of admission, 0 while waiting
        self.blocks = 0
        self.start_step = self.end_step = 0
