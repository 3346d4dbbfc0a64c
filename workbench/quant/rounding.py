"""What happens to a number that lies between two numbers of a grid."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

Ties = Literal["even", "away", "zero", "stochastic"]
"""Round to nearest, and halves to the even step, away from zero or toward zero; or round by chance."""


def check_choice(caller: str, field: str, value: object, choices: Any) -> None:
    """Refuse what is none of a Literal's values."""
    if value not in get_args(choices):
        raise ValueError(f"{caller}: got {field} {value!r}; choose one of {list(get_args(choices))}")


def round_steps(steps: Tensor, ties: Ties, generator: torch.Generator | None = None) -> Tensor:
    """Round magnitudes, counted in steps of a grid, to whole steps.

    Shapes: fp32 (...), none negative -> fp32 (...).
    "stochastic" goes up with the probability of the part above the lower step, so its mean is the number;
    a whole number never moves. torch draws 24 random bits, so a probability errs by up to 2^-24.

    Raises:
        ValueError: the rule is unknown, or chance was asked for without a generator.
    """
    if ties == "even":
        return steps.round()
    # Not floor(steps + 1/2): the sum rounds up from 1/2 - 2^-25. The difference below is exact.
    whole = steps.floor()
    part = steps - whole
    if ties == "away":
        return whole + (part >= 0.5)
    if ties == "zero":
        return whole + (part > 0.5)
    check_choice("round_steps", "ties", ties, Ties)
    if generator is None:
        raise ValueError(
            "round_steps: stochastic rounding got no generator; it needs one to be repeatable; pass "
            "generator=torch.Generator().manual_seed(0)"
        )
    draw = torch.rand(steps.shape, generator=generator, device=steps.device)
    return whole + (draw < part)
