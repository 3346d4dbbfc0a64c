"""Losses against a loop over every token and against TRL, and the identities that the papers state."""

import math
import types
from collections import defaultdict

import pytest
import torch

from workbench.reasoning.losses import GRPO, LOSSES, PolicyLoss, advantages, policy_loss

OPTIONS = {
    **LOSSES,
    "token cispo, tight": PolicyLoss(surrogate="cispo", clip_high=0.1, average="token"),
    "sequence ratio with KL": PolicyLoss(
        ratio="sequence", clip_low=0.05, clip_high=0.05, kl_weight=0.3, is_kl_unbiased=True
    ),
    "mask and KL": PolicyLoss(mask_above=0.1, kl_weight=0.2, average="token"),
    "wide KL": PolicyLoss(kl_weight=0.5, average="constant"),
}


def some(seed: int, b: int = 6, t: int = 5):
    g = torch.Generator().manual_seed(seed)
    now = (-3 * torch.rand(b, t, generator=g)).requires_grad_()
    old = now.detach() + 0.4 * torch.randn(b, t, generator=g)
    reference = now.detach() + 0.3 * torch.randn(b, t, generator=g)
    lengths = torch.randint(1, t + 1, (b,), generator=g)
    lengths[0] = t
    mask = torch.arange(t) < lengths[:, None]
    truncated = torch.rand(b, generator=g) < 0.3
    return now, old, reference, torch.randn(b, generator=g), mask, truncated


def by_loop(now, old, reference, advantage, mask, truncated, loss: PolicyLoss, max_tokens: int) -> float:
    """The equations with scalars."""
    rows = []
    for i in range(len(now)):
        places = [
            t for t in range(now.shape[1]) if mask[i, t] and not (loss.masks_truncated and truncated[i])
        ]
        n, a = len(places), float(advantage[i])
        delta = [(now[i, t] - old[i, t]).item() for t in places]
        mean = sum(delta) / n if n else 0.0
        terms = []
        for t, d in zip(places, delta, strict=True):
            rho = math.exp(mean if loss.ratio == "sequence" else d)
            if loss.surrogate == "cispo":
                gain = min(rho, 1 + loss.clip_high) * a * now[i, t].item()
            else:
                gain = min(rho * a, min(max(rho, 1 - loss.clip_low), 1 + loss.clip_high) * a)
            if a < 0 and -mean > loss.mask_above:
                gain = 0.0
            e = (reference[i, t] - now[i, t]).item()
            kl = (math.exp(e) - e - 1) * (rho if loss.is_kl_unbiased else 1.0)
            terms.append(loss.kl_weight * kl - gain)
        rows.append(terms)
    if loss.average == "sequence":
        return sum(sum(terms) / max(len(terms), 1) for terms in rows) / len(rows)
    total = sum(map(sum, rows))
    return total / (sum(map(len, rows)) if loss.average == "token" else len(rows) * max_tokens)


def ours(parts, loss: PolicyLoss, **more):
    now, old, reference, advantage, mask, truncated = parts
    return policy_loss(
        now,
        old,
        advantage,
        mask,
        loss,
        reference_logprobs=reference,
        truncated=truncated,
        max_tokens=9,
        **more,
    )


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_every_loss_is_its_equation(name, seed):
    parts = some(seed)
    value, _ = ours(parts, OPTIONS[name])
    assert value.item() == pytest.approx(by_loop(*parts, OPTIONS[name], 9), rel=1e-4, abs=1e-6)


TRL_NAMES = {
    "GRPO": dict(loss_type="grpo"),
    "R1": dict(loss_type="grpo", beta=0.001, epsilon_low=10.0, epsilon_high=10.0),
    "Dr. GRPO": dict(loss_type="dr_grpo"),
    "DAPO": dict(loss_type="dapo", epsilon_high=0.28),
    "GSPO": dict(loss_type="grpo", importance_sampling_level="sequence", epsilon_low=3e-4, epsilon_high=4e-4),
    "CISPO": dict(loss_type="cispo", epsilon_high=5.0),  # TRL clamps the ratio at epsilon_high itself
    "V3.2": dict(loss_type="dapo", beta=0.001, unbiased=True, off_policy_mask_threshold=0.5),
    "mask and KL": dict(loss_type="dapo", beta=0.2, off_policy_mask_threshold=0.1),
    "sequence ratio with KL": dict(
        loss_type="grpo",
        importance_sampling_level="sequence",
        epsilon_low=0.05,
        epsilon_high=0.05,
        beta=0.3,
        unbiased=True,
    ),
    "wide KL": dict(loss_type="dr_grpo", beta=0.5),
}


def trl_loss(trainer_class, parts, settings):
    now, old, reference, advantage, mask, _ = parts
    unbiased = settings.pop("unbiased", False)
    stub = types.SimpleNamespace(
        beta=0.0,
        epsilon_low=0.2,
        epsilon_high=0.2,
        importance_sampling_level="token",
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        aux_loss_enabled=False,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        max_completion_length=9,
        current_gradient_accumulation_steps=1,
        model=types.SimpleNamespace(training=True),
        args=types.SimpleNamespace(use_bias_correction_kl=unbiased, delta=None, steps_per_generation=1),
        accelerator=types.SimpleNamespace(
            num_processes=1,
            gather=lambda x: x,
            gather_for_metrics=lambda x: x,
            reduce=lambda x, reduction: x,
        ),
        _metrics={"train": defaultdict(list)},
        get_off_policy_mask=trainer_class.get_off_policy_mask,
        _get_per_token_logps_and_entropies=lambda *_, **__: (now, torch.zeros_like(now), None),
    )
    vars(stub).update(settings)
    inputs = dict(
        prompt_ids=torch.zeros(len(now), 2, dtype=torch.long),
        prompt_mask=torch.ones(len(now), 2, dtype=torch.long),
        completion_ids=torch.zeros_like(mask, dtype=torch.long),
        completion_mask=mask.long(),
        advantages=advantage,
        old_per_token_logps=old,
        ref_per_token_logps=reference,
        num_items_in_batch=mask.sum(),
    )
    return trainer_class._compute_loss(stub, None, inputs)


@pytest.mark.parametrize("name", TRL_NAMES)
def test_value_and_gradient_are_trls(name):
    trl = pytest.importorskip("trl", reason="without TRL its losses go uncompared; the loop above stands")
    loss = OPTIONS[name].replace(masks_truncated=False)  # TRL masks truncated answers before its loss
    parts = some(7)
    value, _ = ours(parts, loss)
    theirs = trl_loss(trl.GRPOTrainer, parts, dict(TRL_NAMES[name]))
    torch.testing.assert_close(value, theirs, rtol=1e-5, atol=1e-7)
    gradient, their_gradient = (torch.autograd.grad(x, parts[0])[0] for x in (value, theirs))
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-5, atol=1e-7)


def test_the_overlong_punishment_is_trls():
    rewards = pytest.importorskip("trl.rewards", reason="without TRL its punishment goes uncompared")
    from workbench.reasoning.rewards import overlong_punishment

    theirs = rewards.get_soft_overlong_punishment(max_completion_len=20, soft_punish_cache=4)
    lengths = range(21)
    assert [overlong_punishment(n, 20, 4) for n in lengths] == pytest.approx(
        theirs([[0] * n for n in lengths])
    )


def test_parts_of_a_batch_add_up_to_the_whole():
    for name, loss in OPTIONS.items():
        now, old, reference, advantage, mask, truncated = some(3)
        whole, _ = ours((now, old, reference, advantage, mask, truncated), loss)
        counted = mask & ~truncated[:, None] if loss.masks_truncated else mask
        total = sum(
            ours(
                [x[rows] for x in (now, old, reference, advantage, mask, truncated)],
                loss,
                total_rows=6,
                total_tokens=float(counted.sum()),
            )[0]
            for rows in (slice(0, 2), slice(2, 6))
        )
        torch.testing.assert_close(total, whole, msg=name)


def test_on_policy_all_clipped_losses_have_the_gradient_of_reinforce():
    """With one update a batch the ratio is 1: clipping, GSPO and CISPO are the same thing."""
    now, _, reference, advantage, mask, truncated = some(5)
    gradients = []
    for loss in (
        GRPO,
        PolicyLoss(clip_high=0.28),
        PolicyLoss(surrogate="cispo"),
        PolicyLoss(ratio="sequence"),
    ):
        loss = loss.replace(average="sequence")
        value, noted = ours((now, now.detach(), reference, advantage, mask, truncated), loss)
        gradients.append(torch.autograd.grad(value, now)[0])
        assert float(noted["clipped"]) == 0
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


@pytest.mark.parametrize(("is_unbiased", "wanted"), [(True, "reverse"), (False, "forward")])
def test_the_kl_estimates_gradient_by_enumeration(is_unbiased, wanted):
    """Over all words: with the ratio the gradient is that of KL(π‖ref), without it that of KL(ref‖π)."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=g, dtype=torch.double).requires_grad_()
    reference = torch.randn(6, generator=g, dtype=torch.double).log_softmax(0)
    log_p = logits.log_softmax(0)
    loss = PolicyLoss(kl_weight=1.0, is_kl_unbiased=is_unbiased, average="sequence")
    total = 0.0
    for word in range(6):  # the expectation under π of the estimate's gradient
        value, _ = policy_loss(
            log_p[word].view(1, 1),
            log_p[word].detach().view(1, 1),
            torch.zeros(1, dtype=torch.double),
            torch.ones(1, 1, dtype=torch.bool),
            loss,
            reference_logprobs=reference[word].view(1, 1),
        )
        total = total + log_p[word].exp().detach() * value
    exact = (
        (log_p.exp() * (log_p - reference)).sum()
        if wanted == "reverse"
        else (reference.exp() * (reference - log_p)).sum()
    )
    torch.testing.assert_close(
        *(torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (total, exact))
    )


def test_advantages_are_centred_scaled_and_zero_in_dead_groups():
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    plain, scaled = advantages(rewards, 4, "none"), advantages(rewards, 4)
    assert plain.tolist() == [0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0]
    torch.testing.assert_close(scaled[:4], plain[:4] / (0.5 + 1e-4))
    with pytest.raises(ValueError, match="whole groups"):
        advantages(rewards, 3)


def test_dr_grpo_does_not_care_how_long_an_answer_is():
    """The same gradient for every token, whatever the length; GRPO's shrinks with it."""
    now = torch.full((2, 6), -1.0, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([2, 6])[:, None]
    for name, ratio in (("Dr. GRPO", 1.0), ("GRPO", 3.0)):
        value, _ = policy_loss(now, now.detach(), torch.tensor([1.0, 1.0]), mask, LOSSES[name], max_tokens=6)
        gradient = torch.autograd.grad(value, now)[0]
        assert float(gradient[0, 0] / gradient[1, 0]) == pytest.approx(ratio)


def test_what_a_loss_needs_must_be_given():
    now, old, _, advantage, mask, _ = some(0)
    with pytest.raises(ValueError, match="got no reference_logprobs"):
        policy_loss(now, old, advantage, mask, LOSSES["R1"])
    with pytest.raises(ValueError, match="got no truncated"):
        policy_loss(now, old, advantage, mask, LOSSES["DAPO"])
    with pytest.raises(ValueError, match="got no max_tokens"):
        policy_loss(now, old, advantage, mask, LOSSES["Dr. GRPO"])
    with pytest.raises(ValueError, match="correct the one below"):
        PolicyLoss(clip_low=-1)
