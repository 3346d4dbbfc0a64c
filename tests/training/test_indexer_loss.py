"""The indexers' objective against loops over queries and heads, and where its gradient goes."""

import math

import pytest
import torch

import workbench as wb
from workbench.model import Transformer
from workbench.training.indexer_loss import (
    attention_inputs,
    every_entry,
    index_recall,
    indexer_loss,
    indexers,
    layer_loss,
)

SAMPLES = torch.tensor([[0] * 30 + [1] * 7, [0] * 3 + [1] * 14 + [2] * 20])


@pytest.fixture
def model():
    config = wb.load_config("tiny").replace(num_nextn_predict_layers=0, compress_ratios=[0, 8, 4, 8, 4])
    network = Transformer(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # first values are so small that every choice would be near even
        for layer in indexers(network):
            for p in layer.parameters():
                p.mul_(8)
    return network


def ids():
    return torch.randint(64, (2, 37), generator=torch.Generator().manual_seed(1))


def observed(model, samples=None):
    with attention_inputs(model) as seen:
        model.streams(ids(), sample_ids=samples)
    return seen


def divergences(attention, looked, row):
    """KL for each query of a row, one head and entry at a time in double precision."""
    found = []
    for query in range(looked.scores.shape[1]):
        scores = looked.scores[row, query].tolist()
        read = [w for w in looked.selected[row, query].tolist() if w >= 0]
        if not read:
            continue
        mass = [sum(looked.entries[row, h, query, w].item() for h in range(4)) for w in read]
        z = sum(math.exp(scores[w]) for w in read)
        found.append(
            sum(m / sum(mass) * math.log(m / sum(mass) * z / math.exp(scores[w]))
                for m, w in zip(mass, read, strict=True) if m > 0)
        )  # fmt: skip
    return found


@pytest.mark.parametrize("samples", [None, SAMPLES], ids=["whole rows", "packed"])
@pytest.mark.parametrize("is_dense", [False, True])
def test_matches_a_loop_over_queries(model, samples, is_dense):
    with every_entry(model) if is_dense else torch.no_grad():
        seen = observed(model, samples)
        for attention, (x, layout) in seen.items():
            looked = wb.model.instruments.observe_attention(attention, x, layout)
            most = max((looked.selected[0] >= 0).sum(dim=-1).tolist())
            assert most == (7 if samples is not None else 9) if is_dense else most == 3
            expected = [sum(d) / len(d) for d in (divergences(attention, looked, row) for row in range(2))]
            assert min(expected) > 1e-4
            torch.testing.assert_close(
                layer_loss(attention, x, layout), torch.tensor(expected), rtol=1e-4, atol=1e-6
            )


def test_only_the_indexers_get_a_gradient_and_every_part_of_them_does(model):
    for manager in (every_entry(model), torch.enable_grad()):
        with manager:
            indexer_loss(observed(model)).backward()
        own = {id(p) for indexer in indexers(model).values() for p in indexer.parameters()}
        for name, p in model.named_parameters():
            assert (p.grad is not None) == (id(p) in own), name
            assert p.grad is None or (p.grad.isfinite().all() and p.grad.abs().max() > 0), name
        model.zero_grad()


def test_the_gradient_is_the_slope_of_the_loss(model):
    seen = observed(model)
    indexer_loss(seen).backward()
    weight = next(iter(indexers(model).values())).scorer.weights_proj.weight
    direction = weight.grad / weight.grad.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-2 * direction
            # The selection must not change under the small step: it is the same set that is compared.
            values.append(indexer_loss(seen).item())
            weight -= sign * 1e-2 * direction
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(weight.grad.norm().item(), rel=0.02)


def test_nothing_is_selected_away_within_every_entry(model):
    with torch.no_grad():
        sparse = model(ids())
        with every_entry(model):
            dense = model(ids())
        wide = Transformer(model.config.replace(index_topk=9))
        wide.load_state_dict(model.state_dict())
        torch.testing.assert_close(dense, wide(ids()), rtol=0, atol=0)
        assert not torch.equal(sparse, dense)
        torch.testing.assert_close(model(ids()), sparse, rtol=0, atol=0)


def test_learning_raises_the_recall(model):
    own = [p for indexer in indexers(model).values() for p in indexer.parameters()]
    optimizer = torch.optim.AdamW(own, lr=1e-2)
    with every_entry(model):
        seen = observed(model)
        before, losses = index_recall(seen, 3), []
        for _ in range(60):
            optimizer.zero_grad()
            loss = indexer_loss(seen)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        assert index_recall(seen, 3) > before + 0.1 * (1 - before)


def test_recall_of_a_loop(model):
    with every_entry(model):
        seen = observed(model)
    means = []
    with every_entry(model):
        for attention, (x, layout) in seen.items():
            looked = wb.model.instruments.observe_attention(attention, x, layout)
            shares = []
            for row in range(2):
                for query in range(37):
                    mass = looked.entries[row, :, query].sum(dim=0).tolist()
                    scores = looked.scores[row, query].tolist()
                    if sum(score > -math.inf for score in scores) > 3:
                        best = sorted(range(len(scores)), key=lambda w: -scores[w])[:3]
                        shares.append(sum(mass[w] for w in best) / sum(sorted(mass)[-3:]))
            means.append(sum(shares) / len(shares))
        assert index_recall(seen, 3) == pytest.approx(sum(means) / len(means), rel=1e-5)


def test_rows_without_an_entry_cost_nothing_and_models_without_indexers_are_refused(model):
    with attention_inputs(model) as seen:
        model.streams(ids()[:, :3])
    assert indexer_loss(seen).item() == 0
    with pytest.raises(ValueError, match=r"^indexer_loss: got no inputs of CSA layers"):
        indexer_loss({})
    with pytest.raises(ValueError, match=r"^index_recall: no query sees more than topk=9 entries"):
        index_recall(observed(model), 9)
