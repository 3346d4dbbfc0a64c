"""Training in a chosen arithmetic: it learns, the same way each time, and only what should move moves."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from tests.oracles.quant_small import small_model
from workbench.model.loss import IGNORED
from workbench.quant import apply
from workbench.training.loader import Loader
from workbench.training.quantised import (
    FP32,
    fresh,
    held_out,
    loss_under,
    mean_interval,
    study_text,
    train_indexers,
    train_under,
)

# A rule to learn: every token follows from the one before.
DOCUMENTS = [[(start + 7 * i) % 58 + 3 for i in range(48)] for start in range(40)]


def trained(steps=25, recipe=FP32):
    model = small_model()
    return model, train_under(model, recipe, DOCUMENTS, steps, rate=5e-3, seed=0, row_tokens=24)


@pytest.mark.parametrize("recipe", [FP32, "fp8_v3", "v4_fp4"])
def test_training_learns_a_rule(recipe):
    _, losses = trained(recipe=recipe)
    assert losses[0] > 3.9
    assert losses[-1] < 0.6 * losses[0]


def test_the_same_seed_gives_the_same_run_and_an_arithmetic_another():
    assert trained(steps=3)[1] == trained(steps=3)[1]
    assert trained(steps=3)[1] != trained(steps=3, recipe="fp8_v3")[1]


def test_a_run_leaves_no_recipe_behind():
    model, _ = trained(steps=2, recipe="fp8_v3")
    with apply(model, "bf16"):  # refuses a model that a recipe runs already
        pass


def test_the_loss_is_the_mean_cross_entropy_in_the_recipes_arithmetic():
    model = small_model()
    batches = [Loader(DOCUMENTS, 24, seed=3).take(n) for n in (2, 5)]
    terms = []
    with apply(model, "fp8_v3"), torch.no_grad():
        for batch in batches:
            logits = model(batch.input_ids, sample_ids=batch.sample_ids)[:, :-1]
            follows = batch.sample_ids[:, 1:] == batch.sample_ids[:, :-1]
            labels = batch.labels[:, 1:].masked_fill(~follows, IGNORED)
            kept = labels != IGNORED
            terms += F.cross_entropy(logits[kept], labels[kept], reduction="none").tolist()
    assert loss_under(model, "fp8_v3", batches) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_indexer_learns_where_attention_looks_and_nothing_else_moves():
    model, _ = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = train_indexers(model, DOCUMENTS, steps=25, row_tokens=48)
    assert losses[-1] < 0.7 * losses[0]
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(".indexer." in name for name in moved)


def test_the_studys_matrices_fill_fp8_blocks():
    model = fresh(0)
    assert 1.5e6 < sum(p.numel() for p in model.parameters()) < 2.5e6
    experts = model.model.layers[0].mlp.experts
    assert experts.gate_up_proj.shape[1:] == (256, 128) and experts.down_proj.shape[1:] == (128, 128)
    assert {layer.self_attn.rule for layer in model.model.layers} == {"main", "compress"}
    assert not torch.equal(experts.down_proj, fresh(1).model.layers[0].mlp.experts.down_proj)


def test_the_text_splits_into_what_is_learned_and_what_is_held_out():
    corpus = study_text()
    assert sum(map(len, corpus.train)) > 100_000
    first, again = held_out(corpus, 3), held_out(corpus, 3)
    assert [batch.input_ids.shape for batch in first] == 3 * [(4, 256)]
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, again, strict=True))
    assert sum(map(len, corpus.held_out)) >= 12 * 4 * 256  # as many as the recorded study reads


def test_the_interval_is_students():
    values = [0.3, -0.1, 0.25, 0.05]
    mean, low, high = mean_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((0.125, expected.low, expected.high))
    with pytest.raises(ValueError, match="mean_interval: got 1 runs"):
        mean_interval([1.0])
