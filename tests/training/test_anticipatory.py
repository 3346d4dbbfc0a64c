"""Anticipatory Routing against copies of the older weights, and what it must leave as it is."""

import copy

import pytest
import torch

from tests.training.small_run import make
from workbench.training.anticipatory import AnticipatoryRouting
from workbench.training.loop import train
from workbench.training.routing import learned_routers

STEPS = 9


def watched(model, calls):
    """Note every choice that a learned router makes in a pass with gradients."""

    def note(number):
        def look(_, inputs, output):
            if torch.is_grad_enabled():
                calls.setdefault(number, []).append(output[1])

        return look

    return [router.register_forward_hook(note(i)) for i, router in enumerate(learned_routers(model))]


def choices_of(model, batch, mtp_weight):
    """What a model's own routers choose for a batch, read in one piece."""
    calls = {}
    hooks = watched(model, calls)
    model.loss(batch.input_ids, sample_ids=batch.sample_ids, labels=batch.labels, mtp_weight=mtp_weight)
    for hook in hooks:
        hook.remove()
    return {number: torch.cat(parts) for number, parts in calls.items()}


@pytest.mark.parametrize(("delay", "begin", "end"), [(1, 0, None), (3, 0, None), (2, 3, 7), (4, 2, 4)])
def test_indices_are_those_of_the_stored_older_model(delay, begin, end):
    # A large rate and bias step, so that a step changes many choices.
    model, loader, recipe = make(steps=STEPS, bias_step=0.05)
    run = train(model, loader, recipe, anticipatory=AnticipatoryRouting(model, delay, begin=begin, end=end))
    older, moved = {}, 0
    for step in range(STEPS):
        older[step] = copy.deepcopy(model)
        batch = loader.peek(recipe.batch(step))
        calls = {}
        hooks = watched(model, calls)
        row = next(run)
        for hook in hooks:
            hook.remove()
        is_covered = begin <= step and (end is None or step < end)
        assert row["is_anticipatory"] == is_covered
        source = max(begin, step - delay) if is_covered else step
        mtp_weight = recipe.rate.mtp_weight(step)
        expected, own = (choices_of(older[i], batch, mtp_weight) for i in (source, step))
        assert len(calls) == 5  # four learned layers and the MTP block
        for number, parts in calls.items():
            assert torch.equal(torch.cat(parts).sort().values, expected[number].sort().values)
        moved += sum(int((expected[n].sort().values != own[n].sort().values).sum()) for n in own)
    assert moved > 20  # else today's choices would have passed too


def test_features_and_mixture_weights_are_todays():
    model, loader, _ = make(steps=1)
    old, ids = copy.deepcopy(model), loader.take(2).input_ids
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    routing = AnticipatoryRouting(model, 1)
    routing.choices[0] = choices_of(
        old, loader.rows._replace(input_ids=ids, sample_ids=ids * 0, labels=ids), 1
    )
    seen = []
    router = learned_routers(model)[1]
    hook = router.register_forward_hook(lambda m, i, o: seen.append((i[0], *o)))
    with routing.routed(0, 0, 2):
        model.loss(ids).backward()
    hook.remove()
    x, weights, experts = seen[0]
    affinity = torch.nn.functional.softplus(x @ router.weight.T).sqrt()
    chosen = affinity.gather(1, experts)
    torch.testing.assert_close(
        weights, chosen / chosen.sum(1, keepdim=True) * model.config.routed_scaling_factor
    )
    assert torch.equal(experts, routing.choices[0][1])
    assert router.weight.grad.abs().max() > 0


def test_the_choices_of_todays_weights_change_nothing():
    model, loader, _ = make(steps=1)
    ids = loader.take(4).input_ids
    routing = AnticipatoryRouting(model, 1)
    routing.prepare(0, lambda step: model.loss(ids))
    with routing.routed(0, 0, 4):
        forced = model.loss(ids)
    forced.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    free = model.loss(ids)
    free.backward()
    assert forced.item() == free.item()
    own = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, own, strict=True))


def test_reading_ahead_does_not_count_as_load():
    one, other = make(steps=1), make(steps=1)
    row = next(train(*one))
    ahead = next(train(*other, anticipatory=AnticipatoryRouting(other[0], 2)))
    # In the first step old and new weights are the same.
    assert {name: ahead[name] for name in row if name != "tokens_per_s"} == {
        name: value for name, value in row.items() if name != "tokens_per_s"
    }
    for a, b in zip(learned_routers(one[0]), learned_routers(other[0]), strict=True):
        assert torch.equal(a.e_score_correction_bias, b.e_score_correction_bias)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path):
    whole = make(steps=8)
    expected = [row["loss"] for row in train(*whole, anticipatory=AnticipatoryRouting(whole[0], 3, begin=2))]
    first = make(steps=8)
    run = train(*first, folder=tmp_path, checkpoint_every=2,
                anticipatory=AnticipatoryRouting(first[0], 3, begin=2))  # fmt: skip
    for row in run:
        if row["step"] == 5:
            break
    run.close()
    second = make(steps=8, seed=9)
    rows = list(train(*second, folder=tmp_path, anticipatory=AnticipatoryRouting(second[0], 3, begin=2)))
    assert [row["loss"] for row in rows] == expected[4:]
    plain = make(steps=8)
    assert [row["loss"] for row in train(*plain)] != expected


def test_another_batch_and_no_delay_are_refused():
    model, loader, _ = make(steps=1)
    with pytest.raises(ValueError, match=r"^AnticipatoryRouting: got delay=0"):
        AnticipatoryRouting(model, 0)
    ids = loader.take(4).input_ids
    routing = AnticipatoryRouting(model, 1)
    routing.prepare(0, lambda step: model.loss(ids[:2]))
    with routing.routed(0, 0, 4), pytest.raises(ValueError, match=r"got 96 tokens .* prepared for 48 tokens"):
        model.loss(ids)
    assert model.loss(ids).isfinite()  # the routers are free again
