"""What calibration needs to know of the inputs of every weight, gathered on the unrounded network.

    H = Σ_t x_t x_tᵀ        Σ_t |x_t|        max_t |x_t|        per channel, over all calibration tokens

H alone gives the output error of any change D of a weight, without the inputs: Σ_t |D x_t|² = tr(D H Dᵀ).

Axes: t tokens, k input channels, e experts or groups (1 for a plain linear map).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.quant.products import Product, Site, sites, take_over
from workbench.quant.recipes import NOTHING, Recipe
from workbench.quant.rounded import multiply


@dataclass
class Inputs:
    """Sums over the inputs of one weight.

    Shapes: second_moment (e, k, k), total (e, k), largest (e, k), tokens (e,).
    """

    second_moment: Tensor
    total: Tensor
    largest: Tensor
    tokens: Tensor

    @classmethod
    def none(cls, stack: int, k: int) -> "Inputs":
        return cls(torch.zeros(stack, k, k), torch.zeros(stack, k), torch.zeros(stack, k), torch.zeros(stack))

    def add(self, x: Tensor, slot: int) -> None:
        """Take in x (t, k)."""
        x = x.float()
        self.second_moment[slot].addmm_(x.mT, x)
        self.total[slot] += x.abs().sum(dim=0)
        self.largest[slot] = self.largest[slot].maximum(x.abs().amax(dim=0))
        self.tokens[slot] += len(x)

    @property
    def mean(self) -> Tensor:
        """The mean |x| of each channel over all tokens of all experts, (k,)."""
        return self.total.sum(dim=0) / self.tokens.sum()


class _Recorder:
    """A `Product` that multiplies as the model does, and looks at x."""

    def __init__(self, stack: int, k: int):
        self.inputs = Inputs.none(stack, k)

    def weight(self, weight: Tensor) -> Tensor:
        return weight

    def __call__(self, x: Tensor, weight: Tensor, expert: int | None) -> Tensor:
        if weight.ndim == 2:
            self.inputs.add(x.flatten(0, -2), expert or 0)
        else:
            for group, own in enumerate(x):
                self.inputs.add(own, group)
        return multiply(x, weight)


def stacked(site: Site) -> Tensor:
    """A site's weight as (e, n, k): experts, the groups of a grouped map, or a single one."""
    weight = site.weight.detach()
    groups = getattr(site.module, "groups", 1)
    return weight if weight.ndim == 3 else weight.unflatten(0, (groups, -1))


@torch.no_grad()
def record_inputs(model: nn.Module, recipe: Recipe, batches: Iterable[Tensor]) -> dict[str, Inputs]:
    """Run token batches (b, s) through the unrounded model and gather the inputs of what a recipe rounds.

    Raises:
        ValueError: a recipe is on the model already.
    """
    recorders: dict[str, _Recorder] = {}
    by_module: dict[nn.Module, dict[str, Product]] = {}
    for name, site in sites(model).items():
        if recipe.rule(site.module_name) != NOTHING:
            stack = stacked(site)
            recorders[name] = _Recorder(len(stack), stack.shape[-1])
            by_module.setdefault(site.module, {})[site.parameter] = recorders[name]
    undo = [take_over(module, products) for module, products in by_module.items()]
    try:
        for ids in batches:
            model(ids)
    finally:
        for step in undo:
            step()
    return {name: recorder.inputs for name, recorder in recorders.items()}
