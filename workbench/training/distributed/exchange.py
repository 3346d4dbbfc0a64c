"""Two ways for processes to trade rows of a tensor, with gradients that travel back the same way."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def exchange(x: Tensor, send: Sequence[int], receive: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """All-to-all: the first send[0] rows of x go to process 0 of the group, the next send[1] to process 1.

    Every process must call it, also one that sends and receives nothing, and so must the backward pass.

    Shapes: x (Σ send, ...) -> (Σ receive, ...), in the order of the processes they come from.
    """
    return _Exchange.apply(x, list(send), list(receive), group)


def gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """All-gather: everyone's x, which has the same shape everywhere. Gradients are added up.

    Shapes: x (...) -> (processes, ...).
    """
    return _Gather.apply(x, group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.send, ctx.receive, ctx.group = send, receive, group
        return _all_to_all(x, send, receive, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(gradient, ctx.receive, ctx.send, ctx.group), None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        y = x.new_empty(dist.get_world_size(group), *x.shape)
        dist.all_gather(list(y.unbind(0)), x.contiguous(), group=group)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Everyone's gradient of the own x, added up here: in one order, and in the precision of the sum.
        ones = [1] * len(gradient)
        return _all_to_all(gradient, ones, ones, ctx.group).sum(dim=0), None


def _all_to_all(x: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup) -> Tensor:
    y = x.new_empty(sum(receive), *x.shape[1:])
    dist.all_to_all_single(y, x.contiguous(), receive, send, group=group)
    return y
