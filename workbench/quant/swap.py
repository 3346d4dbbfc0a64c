"""Change what one module does, from outside, and change it back.

A swapped module is an object of a class that is derived from its own: `front` first, then what it was. It
stays the very same object with the very same parameters, so parents, optimisers, hooks and state dicts
notice nothing, and a deep copy is swapped too.
"""

from collections.abc import Callable
from typing import Any

from torch import nn


class Front(nn.Module):
    """Base of what can stand in front of a module's own class; `super()` is that class."""


def swap(module: nn.Module, front: type[Front], **attributes: Any) -> Callable[[], None]:
    """Put `front` before a module's class and set the attributes it reads, until the returned undo.

    Raises:
        ValueError: something stands in front of this module already.
    """
    own_class = type(module)
    if isinstance(module, Front):
        raise ValueError(
            f"swap: a recipe runs this {own_class.__name__} already; it needs a module as it was built; call "
            f"remove() on what apply() returned, or leave its `with` block"
        )
    for name, value in attributes.items():
        setattr(module, name, value)
    module.__class__ = type(own_class.__name__, (front, own_class), {})

    def undo() -> None:
        module.__class__ = own_class
        for name in attributes:
            delattr(module, name)

    return undo
