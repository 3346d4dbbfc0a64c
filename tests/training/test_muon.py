"""Muon against torch's own where the formulas agree, and against Algorithm 1 written as a loop."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from workbench.training.muon import Muon, matrices
from workbench.training.newton_schulz import STEEP, orthogonalise


def twins(rand, *shapes):
    values = [rand(*shape) for shape in shapes]
    return [[nn.Parameter(v.clone()) for v in values] for _ in range(2)]


def test_equals_torch_where_the_formulas_agree(rand):
    # torch: five steps of one polynomial in bf16, (1 - μ) G for G (the steps ignore scale), γ = 0.2.
    shapes = [(6, 10), (10, 6), (6, 10)]
    ours, theirs = twins(rand, *shapes)
    starts = [w.detach().clone() for w in ours]
    options = dict(lr=0.03, momentum=0.9, weight_decay=0.2)
    mine = Muon(ours, **options, update_rms=0.2, steps=(STEEP,) * 5, dtype=torch.bfloat16)
    other = torch.optim.Muon(theirs, **options, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = rand(*a.shape)
            b.grad = a.grad.clone()
        mine.step()
        other.step()
    for a, b, start in zip(ours, theirs, starts, strict=True):
        # The order of the bf16 products differs, not the update.
        assert (a - b).norm() < 0.03 * (b - start).norm()


def test_equals_algorithm_1(rand):
    lr, decay, mu, gamma = 0.02, 0.1, 0.95, 0.18
    (w,), (reference,) = twins(rand, (5, 8))
    optimizer = Muon([w], lr)
    momentum = torch.zeros(5, 8)
    for _ in range(3):
        gradient = rand(5, 8)
        momentum = mu * momentum + gradient
        update = orthogonalise(mu * momentum + gradient) * 8**0.5 * gamma
        reference.data = reference.data * (1 - lr * decay) - lr * update
        w.grad = gradient
        optimizer.step()
    torch.testing.assert_close(w, reference)


@pytest.mark.parametrize("shape", [(4, 4), (3, 50), (64, 16), (2, 6, 10)])
def test_the_update_has_rms_018_in_every_shape(rand, shape):
    w = nn.Parameter(torch.zeros(shape))
    w.grad = rand(*shape)
    Muon([w], 1.0, weight_decay=0).step()
    assert w.square().mean().sqrt().item() == pytest.approx(0.18, rel=2e-3)


def test_parts_are_matrices_of_their_own(rand):
    stacked, *separate = (nn.Parameter(torch.zeros(s)) for s in [(2, 6, 5), (3, 5), (3, 5), (3, 5), (3, 5)])
    stacked.grad = rand(2, 6, 5)
    for w, gradient in zip(separate, stacked.grad.reshape(4, 3, 5), strict=True):
        w.grad = gradient.clone()
    Muon([{"params": [stacked], "parts": 2}], 0.1).step()
    Muon(separate, 0.1).step()
    torch.testing.assert_close(stacked.reshape(4, 3, 5), torch.stack(list(separate)))
    assert matrices(stacked, 2).shape == (4, 3, 5)


def test_state_survives_saving(rand):
    (a,), (b,) = twins(rand, (4, 6))
    first, second = Muon([a], 0.1), Muon([b], 0.1)
    gradients = [rand(4, 6) for _ in range(2)]
    a.grad = gradients[0]
    first.step()
    b.data.copy_(a.data)
    second.load_state_dict(deepcopy(first.state_dict()))
    for w, optimizer in ((a, first), (b, second)):
        w.grad = gradients[1].clone()
        optimizer.step()
    assert torch.equal(a, b)


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"^Muon: got a parameter of shape \(3,\) .* give vectors to AdamW"):
        Muon([nn.Parameter(torch.zeros(3))], 0.1)
    with pytest.raises(ValueError, match=r"shape \(3, 4\) with parts=2"):
        Muon([{"params": [nn.Parameter(torch.zeros(3, 4))], "parts": 2}], 0.1)
    with pytest.raises(ValueError, match=r"^Muon: got lr=0\.1, momentum=1"):
        Muon([nn.Parameter(torch.zeros(3, 4))], 0.1, momentum=1)
