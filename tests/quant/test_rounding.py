"""Rules for ties on a grid of whole steps, and rounding by chance."""

import pytest
import torch

from workbench.quant.elements import ELEMENTS
from workbench.quant.rounding import round_steps

N_DRAWS = 100_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_halves_go_where_the_rule_says_and_the_rest_to_the_nearest():
    steps = torch.tensor([0.0, 0.5, 1.5, 2.5, 3.25, 3.75, 7.0])
    assert round_steps(steps, "even").tolist() == [0, 0, 2, 2, 3, 4, 7]
    assert round_steps(steps, "away").tolist() == [0, 1, 2, 3, 3, 4, 7]
    assert round_steps(steps, "zero").tolist() == [0, 0, 1, 2, 3, 4, 7]


@pytest.mark.parametrize("ties", ["even", "away", "zero"])
def test_the_neighbours_of_a_half_are_no_ties(ties):
    """The number below 1/2 plus 1/2 is 1 in fp32: adding and cutting off would round it up."""
    half = torch.tensor([0.5, 1.5, 2.5])
    assert round_steps(half.nextafter(torch.zeros(3)), ties).tolist() == [0, 1, 2]
    assert round_steps(half.nextafter(torch.full((3,), 9.0)), ties).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "x"), [("e2m1", 2.3), ("e4m3fn", -0.3), ("hif8", 100.0), ("int8", 2.8), ("bf16", 1e-3)]
)
def test_chance_gives_the_two_neighbours_and_on_average_the_number(name, x):
    fmt = ELEMENTS[name]
    draws = fmt.round(torch.full((N_DRAWS,), x), "stochastic", generator=generator()).double()
    low, high = draws.min(), draws.max()
    # Neighbours: the two values, and nothing between them.
    assert sorted(set(draws.tolist())) == [low, high]
    assert low < x < high
    assert not ((fmt.values > low) & (fmt.values < high)).any()
    x = float(torch.tensor(x))
    chance = (x - low) / (high - low)
    four_sigma = 4 * (high - low) * (chance * (1 - chance) / N_DRAWS).sqrt()
    assert abs(draws.mean() - x) < four_sigma


@pytest.mark.parametrize("name", ["e2m1", "e4m3fn", "e5m2", "hif8", "int8", "bf16", "e3m2"])
def test_chance_never_moves_what_is_exact(name):
    values = ELEMENTS[name].values
    values = values[values.isfinite()].repeat(max(1, 10_000 // len(values)))
    assert torch.equal(ELEMENTS[name].round(values, "stochastic", generator=generator()), values)


def test_chance_never_moves_whole_steps_however_close_to_one_the_draw_is():
    """floor(steps + draw) would: fp32 rounds 2^20 + 0.97 to 2^20 + 1."""
    whole = torch.full((1000,), 2.0**20)
    assert ((whole + torch.rand(1000, generator=generator())).floor() > whole).any(), "no draw shows the trap"
    assert torch.equal(round_steps(whole, "stochastic", generator()), whole)


def test_chance_never_moves_what_is_exact_when_the_draw_is_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape))
    assert round_steps(torch.tensor([3.0, 3.01]), "stochastic", generator()).tolist() == [3, 4]


def test_the_same_generator_state_gives_the_same_draws():
    x = torch.randn(1000, generator=generator(5))
    first, again, other = (
        ELEMENTS["e2m1"].encode(x, "stochastic", generator=generator(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_unknown_rules_and_chance_without_a_generator_are_refused():
    with pytest.raises(ValueError, match=r"got ties 'up'; choose one of \['even', 'away', 'zero'"):
        round_steps(torch.ones(1), "up")
    with pytest.raises(ValueError, match="got no generator"):
        ELEMENTS["e2m1"].encode(torch.ones(1), "stochastic")
