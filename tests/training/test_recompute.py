"""Tensors dropped one by one: the same gradients to the bit, a record no larger than needed."""

import pytest
import torch
from torch import nn

import workbench as wb
from workbench.model import Transformer
from workbench.training.recompute import cheapest_first, of_scopes, record, run_with


class Chain(nn.Module):
    """x -> exp(x W) -> sum of squares: small enough to know every saved tensor."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 6, bias=False)

    def forward(self, x):
        return self.map(x).exp().square().sum()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def tiny():
    model = Transformer(wb.load_config("tiny"), generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 64, (1, 24), generator=torch.Generator().manual_seed(1))

    def forward():
        return model(ids).float().logsumexp(-1).mean()

    forward()  # tables that the first pass makes are there from now on
    return model, forward


def test_another_path_is_noticed():
    torch.manual_seed(0)
    model, sizes = Chain(), iter([5, 6])
    tape = record(lambda: model(torch.ones(next(sizes), 8)))
    with pytest.raises(ValueError, match=r"run_with: .* every run must take the same path"):
        run_with(lambda: model(torch.ones(6, 8)), tape, [])


def test_a_chain_by_hand():
    torch.manual_seed(0)
    model, x = Chain(), torch.randn(5, 8)
    tape = record(lambda: model(x), model)
    # Backward wants exp's result, once for exp and once for the square: 5 × 6 numbers of 4 bytes.
    assert tape.kept_bytes([]) == 120 and len(tape.droppable()) == 1
    # Without it the product and exp run again, from the input and the weight: nothing is kept.
    (exp,) = tape.droppable()
    assert tape.kept_bytes([exp]) == 0
    again, sources = tape.again([exp])
    assert len(again) == 2 and sources == set()
    assert tape.seconds([exp], 1.0, 1e30) == pytest.approx(2 * 5 * 8 * 6)
    loss, held = run_with(lambda: model(x), tape, [exp])
    assert held == 0
    for a, b in zip(gradients(model, loss), gradients(model, model(x)), strict=True):
        assert torch.equal(a, b)


def test_a_model_s_gradients_are_the_same_whatever_is_dropped():
    model, forward = tiny()
    tape = record(forward, model)
    whole = gradients(model, forward())
    every = tape.droppable()
    some = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[: len(every) // 2]
    layers = [f"model.layers.{i}" for i in range(model.v4.num_hidden_layers)]
    for dropped in ([], [every[i] for i in some], every, of_scopes(tape, layers)):
        loss, held = run_with(forward, tape, dropped)
        assert held == tape.kept_bytes(dropped)
        assert all(torch.equal(a, b) for a, b in zip(gradients(model, loss), whole, strict=True))


def test_dropping_everything_keeps_the_least_and_costs_the_most():
    model, forward = tiny()
    tape = record(forward, model)
    every = tape.droppable()
    half = every[::2]
    sizes = [tape.kept_bytes(d) for d in ([], half, every)]
    costs = [tape.seconds(d, 1e12, 1e11) for d in ([], half, every)]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < sizes[0] / 2
    assert costs == sorted(costs) and costs[0] == 0


def test_the_greedy_order_only_frees():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.SiLU())
    x = torch.randn(4, 8)
    tape = record(lambda: model(x).sum(), model)
    plans = cheapest_first(tape, 1e12, 1e11)
    kept = [tape.kept_bytes(plan) for plan in plans]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == len(kept) and plans[0] == ()


@pytest.mark.parametrize("of", [lambda z: z.conj(), lambda z: z.conj().imag], ids=["conjugate", "negative"])
def test_lazy_bits_of_a_view_survive(of):
    torch.manual_seed(0)
    w = torch.randn(4, dtype=torch.complex64, requires_grad=True)
    x = torch.randn(4)

    def forward():
        return torch.view_as_real(of(w * x).square() * x.exp() + 0j).square().sum()

    tape = record(forward)
    (whole,) = torch.autograd.grad(forward(), w)
    loss, _ = run_with(forward, tape, tape.droppable())
    assert torch.equal(torch.autograd.grad(loss, w)[0], whole)


def test_what_backward_does_not_read_cannot_be_dropped():
    torch.manual_seed(0)
    model, x = Chain(), torch.randn(5, 8)
    tape = record(lambda: model(x), model)
    with pytest.raises(ValueError, match=r"run_with: storages \[99\] cannot be dropped"):
        run_with(lambda: model(x), tape, [99])
