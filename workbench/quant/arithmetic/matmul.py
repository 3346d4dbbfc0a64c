"""Matrix products as a chip computes them: which formats go in, how sums are kept, where scales multiply.

    total = 0
    for each chunk of k:   total = total + unit.sum(a[:, chunk], b[:, chunk]) · scale_a · scale_b

A chunk is what a unit sums by itself; between chunks the sum is FP32 ("promotion"). Axes: m rows of a,
n rows of b, k reduction, p independent products.

Report: V3, section 3.3.2 (promotion every 128); V4's reference kernels (chunks of 128 and 32).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.quant.arithmetic.operands import Operand, operand
from workbench.quant.arithmetic.orders import SEQUENTIAL, Order
from workbench.quant.arithmetic.units import Memory, Unit
from workbench.quant.quantized import Format

Scaling = Literal["unit", "chunk", "end"]
"""Where block scales multiply: in the matrix unit, before it aligns the products (MX instructions); after
each chunk, in FP32; or once, after the last."""

ScaleOrder = Literal["together", "a first", "b first"]
"""The order of a sum's two scalings: by the product of both scales, or by one and then the other."""

OUTPUTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """How one kind of matrix product is computed.

    `a` (activations) and `b` (weights) are formats; `b_enters_as` is the element that b's values are cast to,
    exactly, for a unit that lacks theirs. `promote_every` products the unit's sum is added to an FP32 total
    and starts at zero again; None: never. `order` cuts k into parts that are summed apart.
    """

    unit: Unit
    a: str | Format = "fp32"
    b: str | Format = "fp32"
    b_enters_as: str | None = None
    promote_every: int | None = None
    scaling: Scaling = "chunk"
    scale_order: ScaleOrder = "together"
    order: Order = SEQUENTIAL
    output: str = "fp32"

    def operand_a(self, x: Tensor) -> Operand:
        """Activations (m, k) as the unit gets them."""
        return operand(x, self.a)

    def operand_b(self, weight: Tensor) -> Operand:
        """A weight (n, k) as the unit gets it."""
        return operand(weight, self.b, self.b_enters_as)


def matmul(
    a: Tensor | Operand,
    b: Tensor | Operand,
    arithmetic: Arithmetic,
    generator: torch.Generator | None = None,
) -> Tensor:
    """a · bᵀ in the arithmetic of a chip. Both operands have the reduction axis last, as nn.Linear has.

    Tensors are brought to the arithmetic's formats; operands are taken as they are.

    Shapes: a (..., k), b (n, k) -> (..., n); or tensors a (p, m, k), b (p, n, k) -> (p, m, n).

    Raises:
        ValueError: the operands' k differ or are 0; a number is not finite; a chunk has several scales, or
            scales inside the unit are no powers of two; an integer unit gets other numbers; a random order
            has no generator.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor) and b.ndim == 3:
        pairs = zip(a.unbind(), b.unbind(), strict=True)
        return torch.stack([matmul(x, y, arithmetic, generator) for x, y in pairs])
    x = arithmetic.operand_a(a.reshape(-1, a.shape[-1])) if isinstance(a, Tensor) else a
    y = arithmetic.operand_b(b) if isinstance(b, Tensor) else b
    k = x.values.shape[1]
    if y.values.shape[1] != k or not k:
        raise ValueError(
            f"matmul: got a with rows of {k} and b with rows of {y.values.shape[1]}; both have the reduction "
            f"axis last, of one length above 0; transpose one of them"
        )
    if arithmetic.scaling == "unit":
        x, y = x.with_scales_inside(), y.with_scales_inside()
    granule = arithmetic.promote_every or arithmetic.unit.group
    parts = arithmetic.order.cut(k, granule, len(x.values), len(y.values))
    memory = Memory()
    sums = torch.stack([_sum_part(x, y, part, arithmetic, memory) for part in parts])
    total = arithmetic.order.add(sums, generator)
    if arithmetic.scaling == "end":
        total = _scaled(total, x.scale_of(slice(0, k)), y.scale_of(slice(0, k)), arithmetic.scale_order)
    total = total.to(OUTPUTS[arithmetic.output])
    return total.reshape(*a.shape[:-1], len(y.values)) if isinstance(a, Tensor) else total


def _sum_part(x: Operand, y: Operand, part: slice, arithmetic: Arithmetic, memory: Memory) -> Tensor:
    """One part of the reduction, chunk by chunk: fp32, or int32 where scales come at the end."""
    total = None
    step = arithmetic.promote_every or part.stop - part.start
    for begin in range(part.start, part.stop, step):
        chunk = slice(begin, min(begin + step, part.stop))
        found = arithmetic.unit.sum(x.cut(chunk), y.cut(chunk), memory)
        if arithmetic.scaling == "chunk":
            found = _scaled(found, x.scale_of(chunk), y.scale_of(chunk), arithmetic.scale_order)
        total = found if total is None else total + found
    assert total is not None
    return total


def _scaled(total: Tensor, of_a: Tensor | None, of_b: Tensor | None, order: ScaleOrder) -> Tensor:
    """Multiply (m, n) by the scales (m,) and (n,) in FP32, as ordered."""
    total = total.float()
    rows = None if of_a is None else of_a.unsqueeze(1)
    if rows is not None and of_b is not None and order == "together":
        return total * (rows * of_b)
    for factor in (of_b, rows) if order == "b first" else (rows, of_b):
        total = total if factor is None else total * factor
    return total
