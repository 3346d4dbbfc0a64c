"""Divergences against loops, torch's kl_div, enumeration and TRL; what one token estimates."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.distillation.chunked import linear_divergence
from workbench.distillation.divergences import divergence, kl, sampled_kl, sampled_loss
from workbench.distillation.gradient_noise import noise_table, one_token_noise

BETAS = [0.0, 0.2, 0.5, 0.9, 1.0]


def pair(seed: int, *shape: int, scale: float = 2.0):
    g = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(2))


def softmax(z: list[float]) -> list[float]:
    top = max(z)
    e = [math.exp(value - top) for value in z]
    return [value / sum(e) for value in e]


def by_loop(student: list[float], teacher: list[float], beta: float, temperature: float) -> float:
    q, p = (softmax([value / temperature for value in z]) for z in (student, teacher))
    if beta == 0:
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    if beta == 1:
        return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    first = sum(a * math.log(a / c) for a, c in zip(p, m, strict=True))
    second = sum(b * math.log(b / c) for b, c in zip(q, m, strict=True))
    return beta * first + (1 - beta) * second


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("beta", BETAS)
def test_matches_the_written_equation(beta, temperature):
    student, teacher = pair(0, 2, 3, 7)
    ours = divergence(student, teacher, beta, temperature=temperature)
    for i in range(2):
        for t in range(3):
            expected = by_loop(student[i, t].tolist(), teacher[i, t].tolist(), beta, temperature)
            assert ours[i, t].item() == pytest.approx(expected, rel=1e-10)


def test_the_two_kls_are_those_of_torch():
    student, teacher = pair(1, 4, 9)
    q, p = student.log_softmax(-1), teacher.log_softmax(-1)
    torch.testing.assert_close(
        divergence(student, teacher, 0.0), F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    )
    torch.testing.assert_close(
        divergence(student, teacher, 1.0), F.kl_div(p, q, reduction="none", log_target=True).sum(-1)
    )


@pytest.mark.parametrize("beta", BETAS)
def test_matches_the_trainer_of_trl(beta):
    gkd = pytest.importorskip(
        "trl.experimental.gkd.gkd_trainer", reason="without TRL the loss is held to the loop alone"
    )
    student, teacher = pair(2, 3, 5, 11)
    labels = torch.where(torch.arange(5) < 4, 1, -100).expand(3, 5)
    theirs = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta, temperature=1.3)
    ours = divergence(student, teacher, beta, temperature=1.3)[:, :4].mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0, 1), st.floats(0.01, 20))
@settings(deadline=None)
def test_it_is_never_negative_and_zero_at_equality(seed, words, beta, scale):
    student, teacher = pair(seed, 3, words, scale=scale)
    assert (divergence(student, teacher, beta) > -1e-12).all()
    # Logits that differ by a constant are one distribution.
    assert divergence(student, student + 3, beta).abs().max() < 1e-12


@given(st.integers(0, 10_000), st.integers(2, 40))
@settings(deadline=None)
def test_jsd_at_one_half_is_symmetric_and_below_log_two(seed, words):
    student, teacher = pair(seed, 3, words, scale=8)
    here, there = divergence(student, teacher, 0.5), divergence(teacher, student, 0.5)
    torch.testing.assert_close(here, there)
    assert (here <= math.log(2)).all()


@pytest.mark.parametrize("beta", BETAS)
def test_its_gradient_is_the_numerical_one(beta):
    student, teacher = pair(3, 2, 5)
    assert torch.autograd.gradcheck(lambda z: divergence(z, teacher, beta), student.requires_grad_())


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("logit_elements", [1, 20, 10_000])
def test_slices_of_hidden_states_give_the_whole_loss_and_its_gradients(rand, beta, logit_elements):
    x, weight = rand(5, 3, dtype=torch.float64), rand(7, 3, dtype=torch.float64)
    teacher_x, teacher_weight = rand(5, 4, dtype=torch.float64), rand(7, 4, dtype=torch.float64)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    both = [x.requires_grad_(), weight.requires_grad_()]
    whole = (weights * divergence(x @ weight.T, teacher_x @ teacher_weight.T, beta)).sum()
    sliced = linear_divergence(
        *both, teacher_x, teacher_weight, weights, beta=beta, logit_elements=logit_elements
    )
    torch.testing.assert_close(sliced, whole)
    for ours, expected in zip(
        torch.autograd.grad(sliced, both), torch.autograd.grad(whole, both), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_slices_pass_the_numerical_check_and_leave_frozen_heads_alone(rand):
    x, weight = rand(3, 2, dtype=torch.float64), rand(5, 2, dtype=torch.float64)
    teacher, head = rand(3, 4, dtype=torch.float64), rand(5, 4, dtype=torch.float64)
    weights = torch.ones(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: linear_divergence(a, b, teacher, head, weights, logit_elements=5),
        (x.requires_grad_(), weight.requires_grad_()),
    )
    value = linear_divergence(x, weight.detach(), teacher.requires_grad_(), head, weights)
    value.backward()
    assert x.grad is not None and weight.grad is None and teacher.grad is None


@pytest.mark.parametrize("beta", BETAS)
def test_slices_match_the_chunked_loss_of_trl(rand, beta):
    trl = pytest.importorskip(
        "trl.trainer.distillation_trainer", reason="without TRL slices are held to the whole loss alone"
    )
    x, weight, teacher_x, teacher_weight = rand(1, 6, 3), rand(7, 3), rand(1, 6, 4), rand(7, 4)
    mask = torch.tensor([[1, 1, 0, 1, 1, 0]])
    theirs, _, _ = trl._chunked_divergence_loss(x, teacher_x, weight, teacher_weight, mask, beta)
    ours = linear_divergence(x[0], weight, teacher_x[0], teacher_weight, mask[0] / mask.sum(), beta=beta)
    torch.testing.assert_close(ours, theirs)


def exact_mean(values, log_q):
    return (log_q.exp() * values).sum()


def test_estimates_from_one_token_have_the_kl_as_their_mean():
    student, teacher = pair(4, 9)
    q, p = student.log_softmax(-1), teacher.log_softmax(-1)
    true = divergence(student, teacher)
    torch.testing.assert_close(exact_mean(sampled_kl(q, p, "k1"), q), true)
    torch.testing.assert_close(exact_mean(sampled_kl(q, p, "k3"), q), true)
    assert (sampled_kl(q, p, "k3") >= 0).all()
    assert not torch.isclose(exact_mean(sampled_kl(q, p, "k2"), q), true, rtol=1e-2)
    with pytest.raises(ValueError, match="needs one of"):
        sampled_kl(q, p, "k4")


def mean_gradient(loss_of, student, log_q):
    """The mean over every token that could have been drawn."""
    total = torch.zeros_like(student)
    for y in range(len(student)):
        weight = log_q[y].exp().detach()
        total += weight * torch.autograd.grad(loss_of(student.log_softmax(-1)[y], y), student)[0]
    return total


def test_what_each_estimate_teaches():
    student, teacher = pair(5, 6)
    student.requires_grad_()
    q, p = student.log_softmax(-1), teacher.log_softmax(-1)
    reverse = torch.autograd.grad(divergence(student, teacher, 1.0), student)[0]
    forward = torch.autograd.grad(divergence(student, teacher, 0.0), student)[0]
    mask = torch.ones(1, 1, dtype=torch.bool)
    as_policy = mean_gradient(
        lambda own, y: sampled_loss(own.reshape(1, 1), p[y].reshape(1, 1), mask).sum(), student, q
    )
    torch.testing.assert_close(as_policy, reverse)
    k1 = mean_gradient(lambda own, y: sampled_kl(own, p[y], "k1"), student, q)
    torch.testing.assert_close(k1, torch.zeros_like(k1))
    k3 = mean_gradient(lambda own, y: sampled_kl(own, p[y], "k3"), student, q)
    torch.testing.assert_close(k3, forward)


def test_undiscounted_it_follows_the_kl_of_whole_sequences():
    """Two tokens, the second's distribution depends on the first; everything enumerated."""
    g = torch.Generator().manual_seed(6)
    first, second = (
        torch.randn(*s, generator=g, dtype=torch.float64).requires_grad_() for s in ((3,), (3, 3))
    )
    p1 = torch.randn(3, generator=g, dtype=torch.float64).log_softmax(-1)
    p2 = torch.randn(3, 3, generator=g, dtype=torch.float64).log_softmax(-1)
    q1, q2 = first.log_softmax(-1), second.log_softmax(-1)
    whole = kl(q1, p1) + (q1.exp() * kl(q2, p2)).sum()
    expected = torch.autograd.grad(whole, (first, second), retain_graph=True)
    found = {
        0.0: [torch.zeros_like(t) for t in (first, second)],
        1.0: [torch.zeros_like(t) for t in (first, second)],
    }
    mask = torch.ones(1, 2, dtype=torch.bool)
    for discount, total in found.items():
        for a in range(3):
            for b in range(3):
                own = torch.stack([first.log_softmax(-1)[a], second.log_softmax(-1)[a, b]])[None]
                loss = sampled_loss(own, torch.stack([p1[a], p2[a, b]])[None], mask, discount=discount).sum()
                weight = own.sum().exp().detach()
                for t, grad in zip(total, torch.autograd.grad(loss, (first, second)), strict=True):
                    t += weight * grad
    for ours, true in zip(found[1.0], expected, strict=True):
        torch.testing.assert_close(ours, true)
    assert not torch.allclose(found[0.0][0], expected[0], rtol=1e-2)


def test_masked_tokens_cost_and_teach_nothing(rand):
    own, teacher = rand(2, 3).requires_grad_(), rand(2, 3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss = sampled_loss(own, teacher, mask, discount=0.7)
    (gradient,) = torch.autograd.grad(loss.sum(), own)
    assert (loss[~mask] == 0).all() and (gradient[~mask] == 0).all() and (gradient[mask] != 0).all()


@pytest.mark.parametrize("has_baseline", [False, True])
def test_the_noise_in_closed_form_is_that_of_all_gradients(has_baseline):
    student, teacher = pair(7, 8)
    q, r = student.softmax(-1), student.log_softmax(-1) - teacher.log_softmax(-1)
    c = (q * r).sum() if has_baseline else 0.0
    each = torch.stack([(r[y] - c) * (F.one_hot(torch.tensor(y), 8) - q) for y in range(8)])
    mean = (q[:, None] * each).sum(0)
    spread = (q * ((each - mean) ** 2).sum(1)).sum()
    noise = one_token_noise(student, teacher, has_baseline=has_baseline)
    torch.testing.assert_close(noise.variance, spread)
    torch.testing.assert_close(noise.mean_square, (mean**2).sum())
    z = student.clone().requires_grad_()
    true = torch.autograd.grad(divergence(z, teacher), z)[0]
    torch.testing.assert_close(noise.mean_square, (true**2).sum())


def test_the_noise_table_has_a_row_a_setting_with_quartiles_in_order():
    rows = noise_table((50, 100), (0.5, 2.0), (1.0,), pairs=5)
    assert [(row["vocabulary"], row["peak"]) for row in rows] == [(50, 0.5), (50, 2), (100, 0.5), (100, 2)]
    assert all(0 < row["noise_low"] <= row["noise"] <= row["noise_high"] for row in rows)
    assert rows == noise_table((50, 100), (0.5, 2.0), (1.0,), pairs=5)
    assert rows[0]["entropy"] > rows[1]["entropy"]


@pytest.mark.parametrize("change", [{"beta": 1.5}, {"temperature": 0.0}])
def test_a_wrong_setting_says_what_is_needed(rand, change):
    with pytest.raises(ValueError, match="needs equal shapes"):
        divergence(rand(2, 3), rand(2, 3), **change)
    with pytest.raises(ValueError, match="share one vocabulary"):
        divergence(rand(2, 3), rand(2, 4))
    with pytest.raises(ValueError, match="needs as many of each"):
        linear_divergence(rand(2, 3), rand(5, 3), rand(3, 3), rand(5, 3), torch.ones(2))
