"""A recipe on a model, from outside, for as long as it is wanted.

    with quant.apply(model, "v4_fp4"):
        loss = model.loss(ids)          # rounded forward; the gradient reaches the parameters

Report: V4, section 3.4. Axes: n outputs, k inputs, e experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import nn

from workbench.model.attention import Attention
from workbench.model.indexer import Indexer
from workbench.quant.caches import compare_in, hold_keys_in
from workbench.quant.formats import quantize
from workbench.quant.products import Product, Site, sites, take_over
from workbench.quant.recipes import NOTHING, RECIPES, Recipe, Rule
from workbench.quant.rounded import AS_IS, Calibrated, PackedProduct, RoundedProduct
from workbench.quant.swap import Front

Calibration = Mapping[str, Calibrated]
"""What post-training quantisation found, by the name of the weight (see `products.sites`)."""


class Applied:
    """A recipe at work. `remove()`, or leaving a `with` block, gives the model back bit for bit.

    rules: what every product of the model runs under, those that stay as they are included.
    stored_bytes: the weights that are held as codes, scales included; 0 if none is.
    """

    def __init__(self, recipe: Recipe, rules: dict[str, Rule], stored_bytes: int, undo: ExitStack):
        self.recipe, self.rules, self.stored_bytes, self._undo = recipe, rules, stored_bytes, undo

    def remove(self) -> None:
        """Take the recipe off. A second call does nothing."""
        self._undo.close()

    def __enter__(self) -> Applied:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def apply(
    model: nn.Module,
    recipe: str | Recipe,
    calibration: Calibration | None = None,
    *,
    is_packed: bool = False,
) -> Applied:
    """Run a model by a recipe until it is removed. No parameter, hook or buffer of the model changes.

    Args:
        recipe: a name in RECIPES, or a Recipe.
        calibration: scales, rotations and rounded weights of `quant.ptq`.
        is_packed: weights are stored as codes, and decoded for the product. The parameters leave the model
            (what stands in their place has a shape and no numbers) until the recipe is removed; no gradient.

    Raises:
        ValueError: the recipe is unknown, a recipe is on the model already, calibration names a weight that
            the model lacks or the recipe does not round, or a format refuses a shape.
    """
    recipe = _named(recipe) if isinstance(recipe, str) else recipe
    if any(isinstance(module, Front) for module in model.modules()):
        raise ValueError(
            "apply: a recipe runs this model already; it needs the model as it was built; call remove() on "
            "what apply() returned, or leave its `with` block"
        )
    found = sites(model)
    rules = {name: recipe.rule(site.module_name) for name, site in found.items()}
    calibration = calibration or {}
    astray = [name for name in calibration if rules.get(name, NOTHING) == NOTHING]
    if astray:
        raise ValueError(
            f"apply: calibration has {astray[:3]}; recipe {recipe.name!r} rounds no such weight of this "
            f"model; calibrate this model with this recipe"
        )
    with ExitStack() as undo:
        by_module: dict[nn.Module, dict[str, Product]] = {}
        stored_bytes = 0
        for name, site in found.items():
            rule, known = rules[name], calibration.get(name, AS_IS)
            if rule == NOTHING:
                continue
            product = RoundedProduct(rule, known)
            if is_packed and rule.weight:
                product = _pack(site, rule, known, undo)
                stored_bytes += product.stored_bytes
            by_module.setdefault(site.module, {})[site.parameter] = product
        for module, products in by_module.items():
            undo.callback(take_over(module, products))
        _round_caches(model, recipe, undo)
        kept = undo.pop_all()
    return Applied(recipe, rules, stored_bytes, kept)


def _named(name: str) -> Recipe:
    if name not in RECIPES:
        raise ValueError(
            f"apply: recipe {name!r} is unknown; choose one of {sorted(RECIPES)} or build a Recipe"
        )
    return RECIPES[name]


def _pack(site: Site, rule: Rule, found: Calibrated, undo: ExitStack) -> PackedProduct:
    """Replace a parameter by its codes."""
    parameter = site.weight
    codes = found.codes or (quantize(found.of_weight(parameter.detach()), rule.weight[0]),)
    undo.callback(setattr, site.module, site.parameter, parameter)
    hollow = torch.empty_like(parameter, device="meta", requires_grad=False)
    setattr(site.module, site.parameter, nn.Parameter(hollow, requires_grad=False))
    return PackedProduct(rule, codes, found)


def _round_caches(model: nn.Module, recipe: Recipe, undo: ExitStack) -> None:
    for module in model.modules():
        if isinstance(module, Indexer) and (recipe.index or recipe.index_scores):
            undo.callback(compare_in(module, recipe.index, recipe.index_scores))
        elif isinstance(module, Attention) and recipe.kv:
            for step in hold_keys_in(module, recipe.kv):
                undo.callback(step)
