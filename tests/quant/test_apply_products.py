"""Products taken over from outside: all of them, each with its own weight, and only for the time being."""

import copy

import pytest
import torch
from torch import nn

from tests.oracles.quant_small import small_model, small_text
from workbench.model.attention import GroupedLinear
from workbench.quant.products import sites, take_over
from workbench.quant.rounded import multiply


class Times:
    """A product whose result is `factor` times the true one; it keeps what it was asked."""

    def __init__(self, factor=1.0):
        self.factor, self.asked = factor, []

    def weight(self, weight):
        return weight

    def __call__(self, x, weight, expert):
        self.asked.append((tuple(x.shape), weight, expert))
        return self.factor * multiply(x, weight)


def take_all(model, product):
    by_module = {}
    for site in sites(model).values():
        by_module.setdefault(site.module, {})[site.parameter] = product
    return [take_over(module, products) for module, products in by_module.items()]


def test_every_product_with_a_listed_weight_is_diverted():
    """Doubling every product is doubling every weight: a product that slips through would show."""
    model, ids = small_model(), small_text()
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for site in sites(doubled).values():
            site.weight.mul_(2)
    take_all(model, Times(2.0))
    torch.testing.assert_close(model(ids), doubled(ids), rtol=1e-5, atol=1e-5)


def test_products_that_change_nothing_change_no_bit():
    model, ids = small_model(), small_text()
    before = model(ids)
    for undo in take_all(model, Times()):
        undo()
    assert torch.equal(model(ids), before)
    take_all(model, Times())
    assert torch.equal(model(ids), before)


def test_the_list_has_every_linear_map_and_expert_stack_but_the_head():
    model = small_model()
    linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    stacks = {name for name, p in model.named_parameters() if p.ndim == 3}
    assert set(sites(model)) == linear | stacks
    assert len(stacks) == 6  # two in each of three layers


def test_an_expert_meets_its_own_slice_of_the_stack():
    model, ids = small_model(), small_text()
    experts = model.model.layers[1].mlp.experts
    up, down = Times(), Times()
    take_over(experts, {"gate_up_proj": up, "down_proj": down})
    model(ids)
    for product, stack in ((up, experts.gate_up_proj), (down, experts.down_proj)):
        assert [expert for *_, expert in product.asked] == list(range(5))
        assert all(torch.equal(weight, stack[expert]) for _, weight, expert in product.asked)
        assert sum(shape[0] for shape, *_ in product.asked) == 2 * ids.numel()


def test_a_grouped_map_meets_its_rows_group_by_group():
    model, ids = small_model(), small_text(rows=3, length=11)
    (layer,) = [m for n, m in model.named_modules() if isinstance(m, GroupedLinear) and ".1." in n]
    product = Times()
    take_over(layer, {"weight": product})
    model(ids)
    ((shape, weight, expert),) = product.asked
    assert (shape, tuple(weight.shape), expert) == ((2, 33, 96), (2, 16, 96), None)
    assert torch.equal(weight.flatten(0, 1), layer.weight)


def test_a_bias_is_added_after_the_product():
    layer = nn.Linear(3, 5)
    x = torch.randn(2, 3)
    true = layer(x)
    take_over(layer, {"weight": Times(0.0)})
    assert torch.equal(layer(x), layer.bias.expand(2, 5))
    assert not torch.equal(layer(x), true)


def test_a_parameter_read_through_its_stand_in_still_gets_its_gradient():
    class Halved(Times):
        def weight(self, weight):
            return weight / 2

    layer, x = nn.Linear(3, 5, bias=False), torch.randn(7, 3)
    take_over(layer, {"weight": Halved()})
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=0).expand(5, 3) / 2)


def test_a_deep_copy_runs_on_its_own_weights():
    model, ids = small_model(), small_text()
    take_all(model, Times(1.5))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for site in sites(model).values():
            site.weight.zero_()
    assert not torch.equal(twin(ids), model(ids))


def test_a_module_is_taken_over_once():
    layer = nn.Linear(3, 5)
    undo = take_over(layer, {"weight": Times()})
    with pytest.raises(ValueError, match=r"swap: a recipe runs this Linear already; .* remove\(\)"):
        take_over(layer, {"weight": Times()})
    undo()
    assert type(layer) is nn.Linear
    assert "products" not in vars(layer)
    take_over(layer, {"weight": Times()})
