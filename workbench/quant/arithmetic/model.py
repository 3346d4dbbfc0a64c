"""A model in the arithmetic of a chip: the same modules and weights, other products.

Axes: t tokens, k inputs, n outputs, p independent products.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from workbench.quant.arithmetic.chips import ChipArithmetic, chip_arithmetic
from workbench.quant.arithmetic.linear import linear
from workbench.quant.arithmetic.matmul import Arithmetic
from workbench.quant.arithmetic.operands import Operand
from workbench.quant.arithmetic.roles import role_of
from workbench.quant.products import sites, take_over
from workbench.quant.swap import Front, swap


@contextmanager
def arithmetic_of(
    model: nn.Module, chip: str | ChipArithmetic, *, backward: Arithmetic | None = None
) -> Iterator[ChipArithmetic]:
    """Run a model's products in the arithmetic of a chip, as long as the context is open.

    `with arithmetic_of(model, "ascend-950"): model(input_ids)`. Routed experts, linear maps and what is
    left to BF16 each have their own arithmetic there; so have the products of attention. Router, residual
    mixing, index scores, head and loss stay as they are. Modules and parameters stay the same objects; a
    weight is rounded once, and again when it has changed. The gradient passes straight through.

    Raises:
        ValueError: the chip is unknown, or something else runs the model's products already.
    """
    found = chip_arithmetic(chip) if isinstance(chip, str) else chip
    by_module: dict[str, dict[str, _Product]] = {}
    for site in sites(model).values():
        name = site.name if site.parameter == "weight" else site.name.rpartition(".")[0]
        if role := role_of(name):
            by_module.setdefault(name, {})[site.parameter] = _Product(found.of(role), backward)
    with ExitStack() as undo:
        for name, products in by_module.items():
            undo.callback(take_over(model.get_submodule(name), products))
        for name, module in model.named_modules():
            if name.endswith(".core") and role_of(name):
                undo.callback(swap(module, _MultipliesIn, arithmetic=found.plain))
        yield found


class _Product:
    """x Wᵀ in place of a module's own, W rounded once."""

    def __init__(self, arithmetic: Arithmetic, backward: Arithmetic | None):
        self.arithmetic, self.backward = arithmetic, backward
        self.version: tuple[int, int] | None = None
        self.rounded: dict[tuple[int | None, int], Operand] = {}

    def weight(self, weight: Tensor) -> Tensor:
        version = (weight.data_ptr(), weight._version)
        if version != self.version:
            self.version, self.rounded = version, {}
        return weight

    def __call__(self, x: Tensor, weight: Tensor, expert: int | None) -> Tensor:
        if weight.ndim == 2:
            return self._product(x, weight, (expert, 0))
        groups = zip(x.unbind(), weight.unbind(), strict=True)
        return torch.stack([self._product(own, w, (expert, group)) for group, (own, w) in enumerate(groups)])

    def _product(self, x: Tensor, weight: Tensor, part: tuple[int | None, int]) -> Tensor:
        if part not in self.rounded:
            # What an inference pass rounds may serve a training pass later.
            with torch.inference_mode(False):
                self.rounded[part] = self.arithmetic.operand_b(weight)
        return linear(x, weight, self.arithmetic, backward=self.backward, rounded=self.rounded[part])


class _MultipliesIn(Front):
    """Computes what a module multiplies, activations with activations, in an arithmetic."""

    arithmetic: Arithmetic

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Diversion(self.arithmetic):
            return super().forward(*args, **kwargs)


class _Diversion(TorchFunctionMode):
    """Every batched product, by another arithmetic."""

    def __init__(self, arithmetic: Arithmetic):
        super().__init__()
        self.arithmetic = arithmetic

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.bmm, Tensor.matmul, Tensor.__matmul__):
            return self.product(*args)
        if func is torch.baddbmm:
            return args[0] + self.product(*args[1:])
        return func(*args, **(kwargs or {}))

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        """x y, (..., m, k) and (..., k, n)."""
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        x, y = (t.expand(*batch, *t.shape[-2:]).reshape(-1, *t.shape[-2:]) for t in (x, y.mT))
        pairs = zip(x.unbind(), y.unbind(), strict=True)
        return torch.stack([linear(one, other, self.arithmetic) for one, other in pairs]).unflatten(0, batch)
