"""Post-training quantisation of a whole model: a calibration for `quant.apply`, by one of the usual methods.

    calibration = ptq.calibrate(model, recipe, batches, "gptq")
    with quant.apply(model, recipe, calibration): ...

Every weight is calibrated on the inputs that it has in the unrounded network, all in one pass; methods that
go layer by layer through the rounded network pay a pass for each.

Axes: n outputs, k inputs, e experts or groups.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from workbench.quant.blocks import BlockFormat
from workbench.quant.formats import format_of
from workbench.quant.hadamard import rotate_blocks
from workbench.quant.products import Site, sites
from workbench.quant.ptq.gptq import gptq_round
from workbench.quant.ptq.inputs import Inputs, record_inputs, stacked
from workbench.quant.ptq.scaling import awq_scale, smooth_scale
from workbench.quant.recipes import Recipe, Rule
from workbench.quant.rounded import Calibrated

Calibrate = Callable[[Site, Rule, Inputs], Calibrated]


@torch.no_grad()
def calibrate(
    model: nn.Module, recipe: Recipe, batches: Iterable[Tensor], method: str
) -> dict[str, Calibrated]:
    """What a method of METHODS finds for every weight that a recipe rounds; batches are token ids (b, s).

    Raises:
        ValueError: the method is unknown, a recipe is on the model already, or GPTQ meets a format whose
            blocks have more than one scale.
    """
    if method not in METHODS:
        raise ValueError(f"calibrate: method {method!r} is unknown; choose one of {list(METHODS)}")
    found = sites(model)
    return {
        name: METHODS[method](found[name], recipe.rule(found[name].module_name), inputs)
        for name, inputs in record_inputs(model, recipe, batches).items()
    }


def _smoothquant(site: Site, rule: Rule, inputs: Inputs) -> Calibrated:
    return Calibrated(scale=smooth_scale(stacked(site), inputs))


def _awq(site: Site, rule: Rule, inputs: Inputs) -> Calibrated:
    return Calibrated(scale=awq_scale(stacked(site), inputs, rule.weight))


def _hadamard(site: Site, rule: Rule, inputs: Inputs) -> Calibrated:
    """Blocks as wide as the format's, or the widest that divide the row: wider ones mix scales."""
    k = site.weight.shape[-1]
    columns = getattr(format_of(rule.weight[0]), "columns", None) or k
    return Calibrated(rotation=math.gcd(columns, k & -k))


def _gptq(site: Site, rule: Rule, inputs: Inputs) -> Calibrated:
    return _solve(site, rule, inputs, Calibrated())


def _mr_gptq(site: Site, rule: Rule, inputs: Inputs) -> Calibrated:
    return _solve(site, rule, inputs, _hadamard(site, rule, inputs))


def _solve(site: Site, rule: Rule, inputs: Inputs, found: Calibrated) -> Calibrated:
    """GPTQ of every matrix of a stack, after what was found before."""
    fmt = format_of(rule.weight[0])
    if not isinstance(fmt, BlockFormat):
        raise ValueError(
            f"calibrate: GPTQ got format {fmt.name!r} for {site.name}; it goes channel by channel and needs "
            f"one scale a block; choose a BlockFormat such as 'mxfp4_v4', or method 'hadamard'"
        )
    stack, moments = stacked(site), inputs.second_moment
    if found.rotation:
        moments = rotate_blocks(rotate_blocks(moments, found.rotation).mT, found.rotation)
    rounded = (gptq_round(found.of_weight(w), h, fmt) for w, h in zip(stack, moments, strict=True))
    return replace(found, codes=tuple(rounded))


METHODS: dict[str, Calibrate] = {
    "rtn": lambda site, rule, inputs: Calibrated(),
    "smoothquant": _smoothquant,
    "awq": _awq,
    "hadamard": _hadamard,
    "gptq": _gptq,
    "mr-gptq": _mr_gptq,
}
