"""The small training loop: it learns, the same way each time, and the indexer learns beside it."""

from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from tests.oracles.quant_small import small_model, small_text
from workbench.model.transformer import Transformer
from workbench.quant import apply
from workbench.quant.instruments import index_scores_of
from workbench.quant.study import (
    attention_inputs,
    draw_batches,
    held_out_loss,
    indexer_loss,
    study_config,
    train,
    train_indexers,
)

TEXT = torch.arange(400) * 7 % 58 + 3  # a rule to learn: every token follows from the one before


def trained(steps=25, recipe=None):
    model = small_model()
    batches = draw_batches(TEXT, rows=4, length=24, seed=0)
    if recipe is None:
        return model, list(train(model, batches, steps, lr=5e-3))
    with apply(model, recipe):
        return model, list(train(model, batches, steps, lr=5e-3))


@pytest.mark.parametrize("recipe", [None, "fp8_v3", "v4_fp4"])
def test_training_learns_a_rule(recipe):
    _, losses = trained(recipe=recipe)
    assert losses[0] > 3.9
    assert losses[-1] < 0.6 * losses[0]


def test_the_same_seed_gives_the_same_run():
    assert trained(steps=3)[1] == trained(steps=3)[1]


def test_batches_are_stretches_of_the_text():
    ids = torch.arange(100)
    for batch in islice(draw_batches(ids, rows=3, length=7, seed=4), 5):
        assert batch.shape == (3, 7)
        assert torch.equal(batch - batch[:, :1], torch.arange(7).expand(3, 7))


def test_the_held_out_loss_is_the_mean_cross_entropy():
    model, batches = small_model(), [small_text(seed=seed) for seed in (1, 2)]
    losses = [F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) for ids in batches]
    assert held_out_loss(model, batches) == pytest.approx(sum(losses).item() / 2, rel=1e-5)


def test_the_indexer_learns_where_attention_looks_and_nothing_else_moves():
    model, _ = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = train_indexers(model, draw_batches(TEXT, rows=4, length=48, seed=1), steps=25)
    assert losses[-1] < 0.7 * losses[0]
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(".indexer." in name for name in moved)


def test_the_indexers_loss_is_the_divergence_from_attentions_choice():
    model, ids = small_model(), small_text()
    ((layer, (x, layout)),) = attention_inputs(model, ids).items()
    probabilities = []
    hook = layer.core.register_forward_hook(lambda m, i, o: probabilities.append(o[1][1]))
    topk = layer.index_topk, layer.compressor.indexer.topk
    layer.index_topk = layer.compressor.indexer.topk = 1000  # every entry is read
    layer(x, layout)
    hook.remove()
    layer.index_topk, layer.compressor.indexer.topk = topk
    by_query = [p.unflatten(1, (-1, 4)).sum(dim=2) for p in probabilities]
    target = torch.cat([F.pad(p, (0, 9 - p.shape[-1])) for p in by_query], dim=1)
    scores, terms = index_scores_of(layer, x, layout), []
    for row in range(2):
        for p in range(37):
            n = (p + 1) // 4
            if n:
                share = target[row, p, :n] / target[row, p, :n].sum()
                terms.append(F.kl_div(scores[row, p, :n].log_softmax(0), share, reduction="sum").item())
    assert indexer_loss(layer, x, layout).item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert layer.compressor.indexer.topk == topk[1]


def test_the_study_networks_matrices_fill_fp8_blocks():
    model = Transformer(study_config(512))
    assert 1.5e6 < sum(p.numel() for p in model.parameters()) < 2.5e6
    experts = model.model.layers[0].mlp.experts
    assert experts.gate_up_proj.shape[1:] == (256, 128) and experts.down_proj.shape[1:] == (128, 128)
    assert {layer.self_attn.rule for layer in model.model.layers} == {"main", "compress"}
