"""A matrix product, or attention, executed tile by tile, in the order and the arithmetic of a chip.

The kernel simulator chooses a schedule (tile, parts of k, cores) and says how long it takes; here the same
schedule produces the numbers. So one can ask of one object both "how long?" and "which bits?".

Axes: m rows of a, n rows of b, k reduction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from workbench.chips.kernels.attention import KEYS_PER_STEP
from workbench.chips.kernels.schedule import Schedule, Visit
from workbench.quant.arithmetic.attention import Partial
from workbench.quant.arithmetic.matmul import OUTPUTS, Arithmetic, matmul
from workbench.quant.arithmetic.operands import Operand
from workbench.quant.arithmetic.orders import Order, ordered_sum


@dataclass(frozen=True)
class Executed:
    """A product, and who did what for it. loads: numbers of both operands that each core fetched.

    Shapes: product (m, n).
    """

    product: Tensor
    visits: tuple[Visit, ...]
    loads: tuple[int, ...]


def execute(
    a: Tensor,
    b: Tensor,
    arithmetic: Arithmetic,
    schedule: Schedule,
    *,
    combine: Literal["first to last", "tree", "random"] = "first to last",
    generator: torch.Generator | None = None,
) -> Executed:
    """a · bᵀ by a schedule. The arithmetic's own order gives way to the schedule's parts of k.

    Operands are rounded once, as a kernel finds them in memory. A tile of the result is written when the
    last of its parts is done; `combine` says in which order their sums are added.

    Shapes: a (m, k), b (n, k) -> (m, n).

    Raises:
        ValueError: sizes that are not the schedule's, or as `matmul`.
    """
    if schedule.groups != 1 or (a.shape, b.shape) != ((schedule.m, schedule.k), (schedule.n, schedule.k)):
        raise ValueError(
            f"execute: got a {tuple(a.shape)} and b {tuple(b.shape)}; the schedule is of {schedule.groups} "
            f"product(s) of ({schedule.m}, {schedule.k}) and ({schedule.n}, {schedule.k}); make it for these"
        )
    how = replace(arithmetic, order=Order(schedule.parts, combine))
    x, y = how.operand_a(a), how.operand_b(b)
    granule = how.promote_every or how.unit.group
    parts = how.order.cut(schedule.k, granule, schedule.m, schedule.n)
    product = torch.full((schedule.m, schedule.n), torch.nan, dtype=OUTPUTS[how.output])
    visits, loads = [], [0] * schedule.cores
    for visit in schedule.visits():
        if visit.part >= len(parts):
            continue  # k has fewer granules than the schedule has parts
        rows, columns, part = visit.rows, visit.columns, parts[visit.part]
        loads[visit.core] += (rows.stop - rows.start + columns.stop - columns.start) * (
            part.stop - part.start
        )
        visits.append(visit)
        if visit.part == len(parts) - 1:
            product[rows, columns] = matmul(_rows(x, rows), _rows(y, columns), how, generator)
    return Executed(product, tuple(visits), tuple(loads))


def execute_attention(q: Tensor, kv: Tensor, arithmetic: Arithmetic, schedule: Schedule) -> Executed:
    """Attention of query rows over one set of keys, which are the values too, by a schedule.

    A core walks through its part of the keys in blocks: scores in the chip's arithmetic, softmax in FP32,
    probabilities rounded to the operand's format, and a second product. Parts are joined from first to last.

    Shapes: q (m, c), kv (t, c) -> (m, c).

    Raises:
        ValueError: sizes that are not the schedule's, or as `matmul`.
    """
    sizes = (schedule.m, schedule.n), (schedule.k, schedule.n)
    if schedule.groups != 1 or (tuple(q.shape), tuple(kv.shape)) != sizes:
        raise ValueError(
            f"execute_attention: got q {tuple(q.shape)} and kv {tuple(kv.shape)}; the schedule is of "
            f"{schedule.groups} set(s) of keys and needs {sizes[0]} and {sizes[1]}; make it for these"
        )
    how = replace(arithmetic, order=Order(), output="fp32")
    parts = Order(schedule.parts).cut(schedule.k, int(KEYS_PER_STEP), schedule.m, schedule.n)
    product = torch.full(q.shape, torch.nan, dtype=OUTPUTS[arithmetic.output])
    visits, loads = [], [0] * schedule.cores
    done: list[Partial] = []
    for visit in schedule.visits():
        if visit.part >= len(parts):
            continue  # there are fewer blocks of keys than the schedule has parts
        mine, keys = q[visit.rows], kv[parts[visit.part]]
        loads[visit.core] += mine.numel() + keys.numel()
        visits.append(visit)
        done.append(
            reduce(Partial.merge, (_attend(mine, block, how) for block in keys.split(int(KEYS_PER_STEP))))
        )
        if visit.part == len(parts) - 1:
            whole = reduce(Partial.merge, done)
            product[visit.rows] = (whole.weighted / whole.total).to(product.dtype)
            done = []
    return Executed(product, tuple(visits), tuple(loads))


def _attend(q: Tensor, kv: Tensor, how: Arithmetic) -> Partial:
    """One block of keys: (m, c) and (t, c) -> its part of the softmax and of the weighted values."""
    logits = matmul(q, kv, how) * q.shape[-1] ** -0.5
    largest = logits.amax(dim=1, keepdim=True)
    weights = (logits - largest).exp()
    return Partial(largest, ordered_sum(weights.T, range(len(kv))).unsqueeze(1), matmul(weights, kv.T, how))


def _rows(operand: Operand, rows: slice) -> Operand:
    """Some rows of an operand, with their scales."""
    scales = None if operand.scales is None else operand.scales[rows]
    return Operand(operand.values[rows], operand.exponents[rows], scales, operand.block)
