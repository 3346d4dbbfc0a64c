"""The draft against the equations; and that drafting changes how fast a text comes, not which."""

import operator

import pytest
import torch

from tests.oracles import v41_layer as oracle
from tests.oracles.v4_small import double_weights
from tests.oracles.v41_small import small_model
from workbench.model.sampling import GREEDY, Sampling
from workbench.model.speculative import verify
from workbench.model.v41.speculative import generate_speculative


@pytest.fixture(scope="module")
def small():
    model, generator = small_model(1)
    return model, torch.randint(59, (3, 12), generator=generator)


def slots(model, ids, first):
    """(b, i, d) after whole prompts (b, s)."""
    targets = model.hidden(ids)[1]
    context = model.mtp.context(targets, torch.full((len(ids),), ids.shape[1] - 1))
    return model.mtp(context, first, model.model.embed_tokens)


@pytest.mark.parametrize("length", [3, 12])  # shorter and longer than the window of 7
def test_slots_match_the_written_equations(small, length):
    model, ids = small
    weights, first = double_weights(model), torch.tensor([5, 17, 58])
    with torch.no_grad():
        y = slots(model, ids[:, :length], first)
    for row in range(3):
        targets = oracle.forward(ids[row, :length].tolist(), weights, model.config)[1]
        expected = oracle.draft(targets, int(first[row]), weights, model.config)
        torch.testing.assert_close(y[row].double(), expected, rtol=3e-5, atol=3e-5)


def test_places_before_the_text_are_not_looked_at(small):
    model, ids = small
    with torch.no_grad():
        targets = model.hidden(ids[:, :3])[1]
        padded = torch.cat((torch.full((3, 4, targets.shape[-1]), 9.0), targets), dim=1)
        contexts = [model.mtp.context(t, torch.tensor([2, 2, 2])) for t in (targets, padded)]
        first = ids[:, 3]
        a, b = (model.mtp(context, first, model.model.embed_tokens) for context in contexts)
    torch.testing.assert_close(a, b)


def test_heads_are_the_written_ones(small):
    model, ids = small
    D, y = model.mtp, torch.randn(3, 5, 28, generator=torch.Generator().manual_seed(4))
    previous = ids[:, :5]
    with torch.no_grad():
        logits = D.logits(y, previous, model.lm_head)
        plain = D.logits(y, previous, model.lm_head, markov=False)
        sure = D.confidence(y, previous)
    row, slot = 2, 3
    e = D.markov_embed.weight[previous[row, slot]]
    torch.testing.assert_close((logits - plain)[row, slot], D.markov_proj.weight @ e, rtol=1e-4, atol=1e-4)
    known = torch.cat((y[row, slot], e))
    torch.testing.assert_close(sure[row, slot], D.confidence_proj.weight[0] @ known)


def test_greedy_text_is_the_models_own(small):
    model, ids = small
    for row in range(2):
        text = ids[row : row + 1].tolist()[0]
        with torch.no_grad():
            for _ in range(17):
                text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
        for least in (0.0, 0.5, 1.1):
            got, acceptance = generate_speculative(
                model, ids[row : row + 1, :], 17, least_confidence=least, replay=12
            )
            assert got == text[12:]
            assert acceptance.passes == 16 or least <= 1
            assert sum(acceptance.checked) == 0 or least <= 1
            assert all(map(operator.le, acceptance.accepted, acceptance.checked))


def test_each_slot_is_drawn_given_the_token_before_it(small):
    model, ids = small
    y = torch.randn(3, 5, 28, generator=torch.Generator().manual_seed(6))
    uniforms, warm = torch.rand(3, 5, generator=torch.Generator().manual_seed(7)), Sampling(temperature=1.0)
    with torch.no_grad():
        tokens, q, sure = model.mtp.sample(y, ids[:, 0], model.lm_head, warm, uniforms)
        previous = torch.cat((ids[:, :1], tokens[:, :-1]), dim=1)
        torch.testing.assert_close(q, model.mtp.logits(y, previous, model.lm_head).softmax(dim=-1))
        torch.testing.assert_close(sure, model.mtp.confidence(y, previous))


def test_drafts_from_the_cache_fare_as_drafts_from_the_whole_text(small):
    model, ids = small
    text, accepted_at, passes = ids[:1].tolist()[0], [0] * 5, 0
    with torch.no_grad():
        text.append(int(model(ids[:1])[0, -1].argmax()))
        while len(text) < 12 + 30:
            y = slots(model, torch.tensor([text[:-1]]), torch.tensor(text[-1:]))
            guesses, _, _ = model.mtp.sample(
                y, torch.tensor(text[-1:]), model.lm_head, GREEDY, torch.zeros(1, 5)
            )
            own = model(torch.tensor([text + guesses[0].tolist()]))[0, len(text) - 1 :].argmax(dim=-1)
            n = int((own[:-1] == guesses[0]).long().cumprod(dim=0).sum())
            text += own[: n + 1].tolist()
            passes += 1
            accepted_at = [count + (n > i) for i, count in enumerate(accepted_at)]
    got, acceptance = generate_speculative(model, ids[:1], 30, replay=12)
    assert got == text[12:42]
    assert (acceptance.passes, acceptance.accepted) == (passes, tuple(accepted_at))
    assert accepted_at[0] > 0


def test_drafted_text_has_the_models_distribution():
    """Two tokens over 4 words, 40,000 drafts of 2 slots: every pair as often as the model says."""
    model, _ = small_model(2, vocab_size=8, dspark_block_size=2, dspark_noise_token_id=6, image_token_id=7)
    rows, sampling = 40_000, Sampling(temperature=1.0, top_p=0.9)
    prompt, first = torch.tensor([[3, 1, 2, 5]]), torch.tensor([4])
    with torch.no_grad():
        y = slots(model, prompt, first).expand(rows, -1, -1)
        uniforms = torch.rand(rows, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        drafted, q, _ = model.mtp.sample(y, first.expand(rows), model.lm_head, sampling, uniforms[:, :2])
        words = torch.cartesian_prod(torch.arange(8), torch.arange(8))
        texts = torch.cat((torch.tensor([[3, 1, 2, 5, 4]]).expand(64, -1), words), dim=1)
        p = sampling.probabilities(model(texts)[:, 4:])
    mine = (drafted * torch.tensor([8, 1])).sum(dim=1)
    accepted, final = verify(p[mine], q, drafted, uniforms[:, 2:])
    accepted, final = torch.tensor(accepted), torch.tensor(final)
    assert all((accepted == n).float().mean() > 0.05 for n in (0, 2))
    one = torch.where(accepted >= 1, drafted[:, 0], final)
    counts = one.bincount(minlength=8).double()
    expected = p[0, 0].double() * rows
    chi = ((counts - expected) ** 2 / expected.clamp(min=1e-9))[expected > 0].sum()
    assert counts[expected == 0].sum() == 0
    assert chi < 30  # of at most 7 degrees of freedom: one in 10,000
    # The second token, where the first was accepted and is the commonest of them.
    common = int(one[accepted >= 1].bincount().argmax())
    seen = (accepted >= 1) & (drafted[:, 0] == common)
    two = torch.where(accepted >= 2, drafted[:, 1], final)[seen]
    expected = p[common * 8, 1].double() * len(two)
    counts = two.bincount(minlength=8).double()
    chi = ((counts - expected) ** 2 / expected.clamp(min=1e-9))[expected > 0].sum()
    assert len(two) > 1000 and counts[expected == 0].sum() == 0 and chi < 30


def test_more_than_one_row_is_refused(small):
    model, ids = small
    with pytest.raises(ValueError, match="got 3 rows and max_new_tokens=4; it writes one row"):
        generate_speculative(model, ids, 4)
