"""Every product of activations with a weight, handed to whoever wants to compute it in another way.

A module's own forward runs as it is. While it does, a torch function mode follows its parameters from
where they are read, through views, to the products, and hands these over.

Axes: t tokens, k inputs (summed over), n outputs, e experts, g groups.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from workbench.model.experts import Experts
from workbench.quant.swap import Front, swap

HEAD = "lm_head"  # stays as it is in every recipe, and the loss reads its weight past its forward


class Product(Protocol):
    """What stands in for y = x Wᵀ at one place of a network."""

    def weight(self, weight: Tensor) -> Tensor:
        """What the products of this pass read in place of the parameter, (n, k) or (e, n, k)."""

    def __call__(self, x: Tensor, weight: Tensor, expert: int | None) -> Tensor:
        """x (..., t, k), weight (..., n, k), a part of what `weight` gave -> (..., t, n)."""


@dataclass(frozen=True)
class Site:
    """One weight that activations are multiplied with: a linear map's, or that of a stack of experts."""

    name: str
    module: nn.Module
    parameter: str

    @property
    def module_name(self) -> str:
        return self.name if self.parameter == "weight" else self.name.rpartition(".")[0]

    @property
    def weight(self) -> Tensor:
        """The parameter, (n, k) or (e, n, k)."""
        weight = getattr(self.module, self.parameter)
        assert isinstance(weight, Tensor)
        return weight


def sites(model: nn.Module) -> dict[str, Site]:
    """Every weight that can be taken over, by name, in the order of the model's modules.

    Not among them: the head, the embedding, routers and the residual mixing, which no recipe of
    DeepSeek's rounds.
    """
    found = []
    for name, module in model.named_modules():
        if isinstance(module, Experts):
            found += [Site(f"{name}.{own}", module, own) for own in ("gate_up_proj", "down_proj")]
        elif isinstance(module, nn.Linear) and name != HEAD:
            found.append(Site(name, module, "weight"))
    return {site.name: site for site in found}


def take_over(module: nn.Module, products: Mapping[str, Product]) -> Callable[[], None]:
    """Compute a module's products with the named parameters by `products`, until the returned undo.

    Raises:
        ValueError: as `swap`.
    """
    return swap(module, _TakenOver, products=dict(products))


class _TakenOver(Front):
    """Runs the module's own forward with its products diverted."""

    products: dict[str, Product]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Diversion({id(getattr(self, name)): product for name, product in self.products.items()}):
            return super().forward(*args, **kwargs)


@dataclass(frozen=True)
class _Weight:
    """What is known of a tensor that stands for a weight, or for a part or rearrangement of it."""

    tensor: Tensor  # keeps the tensor alive, so that its id stays its own
    product: Product
    expert: int | None = None


class _Diversion(TorchFunctionMode):
    """Follows the weights of one module through one forward, from the parameter to the product."""

    def __init__(self, products: Mapping[int, Product]):
        super().__init__()
        self.products = products
        self.read: dict[int, Tensor] = {}
        self.known: dict[int, _Weight] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tuple(self._read(a) for a in args), kwargs or {}
        if func in (F.linear, torch.bmm) and (weight := self.known.get(id(args[1]))):
            # A grouped map multiplies by batches of transposed weights, (g, k, n).
            y = weight.product(args[0], args[1].mT if func is torch.bmm else args[1], weight.expert)
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            return y if bias is None else y + bias
        result = func(*args, **kwargs)
        if args and (weight := self.known.get(id(args[0]))):
            if func is Tensor.unbind:
                for expert, part in enumerate(result):
                    self.known[id(part)] = _Weight(part, weight.product, expert)
            elif isinstance(result, Tensor):
                self.known[id(result)] = _Weight(result, weight.product, weight.expert)
        return result

    def _read(self, argument: Any) -> Any:
        """The argument, or what stands in for it if it is a parameter."""
        key = id(argument)
        if key not in self.products:
            return argument
        if key not in self.read:
            product = self.products[key]
            weight = product.weight(argument)
            self.read[key] = weight
            self.known[id(weight)] = _Weight(weight, product)
        return self.read[key]
