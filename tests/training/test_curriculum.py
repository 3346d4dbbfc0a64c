"""The stages: what each trains, in what order, over which rows, and that they resume to the bit."""

import pytest
import torch

from tests.training.small_run import documents, make
from workbench.training.curriculum import Stage, plan, train_stages
from workbench.training.indexer_loss import attention_inputs, every_entry, index_recall, indexers
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.schedules import BatchRamp, LearningRate

RECIPE = Recipe(LearningRate(0.02, 0.002, 2, 3, 99), BatchRamp(4, 8, 3), micro_rows=4)


def long_documents():
    return [document * 3 for document in documents()]


def weights(model, *, of_indexers):
    own = {id(p) for indexer in indexers(model).values() for p in indexer.parameters()}
    return torch.cat([p.detach().flatten() for p in model.parameters() if (id(p) in own) == of_indexers])


def biases(model):
    return torch.cat([b.flatten().float() for name, b in model.named_buffers() if "correction" in name])


def test_the_plan_is_the_reports_in_small():
    stages = plan(RECIPE, [16, 32, 64], [5, 4, 6], sparse_from=1, warmup_steps=2)
    assert [(s.name, s.row_tokens) for s in stages] == [
        ("dense 16", 16), ("warm-up 32", 32), ("sparse 32", 32), ("sparse 64", 64)
    ]  # fmt: skip
    first, warmup, middle, last = (s.recipe for s in stages)
    assert [(r.attention, r.indexer) for r in (first, warmup, middle, last)] == [
        ("dense", "off"), ("dense", "alone"), ("sparse", "beside"), ("sparse", "beside")
    ]  # fmt: skip
    assert [first.rate(i) for i in range(5)] == [0.01, 0.02, 0.02, 0.02, 0.02]
    assert [middle.rate(i) for i in range(4)] == [0.02] * 4
    assert last.rate(2) == 0.02 and last.rate(5) == pytest.approx(0.002)
    assert warmup.rate(0) == warmup.rate(1) == 1e-3
    # A step keeps its tokens: 8 rows of 16, 4 of 32, 2 of 64.
    assert [
        r.batch(9) * s.row_tokens for r, s in zip((first, warmup, middle, last), stages, strict=True)
    ] == [128] * 4
    assert first.batch == RECIPE.batch


def test_each_stage_trains_what_it_should():
    model, _, _ = make(steps=1)
    stages = plan(RECIPE, [16, 32], [4, 4], sparse_from=1, warmup_steps=3)
    kept, changed = {}, {}
    state = [weights(model, of_indexers=side) for side in (False, True)] + [biases(model)]
    for row in train_stages(model, long_documents(), stages, seed=0):
        now = [weights(model, of_indexers=side) for side in (False, True)] + [biases(model)]
        changed.setdefault(row["stage"], []).append(
            tuple(not torch.equal(a, b) for a, b in zip(state, now, strict=True))
        )
        assert ("indexer_loss" in row) == (row["stage"] != "dense 16")
        state = now
        kept[row["stage"]] = row["run_step"]
    assert kept == {"dense 16": 4, "warm-up 32": 7, "sparse 32": 11}
    assert changed == {
        "dense 16": [(True, False, True)] * 4,
        "warm-up 32": [(False, True, False)] * 3,
        "sparse 32": [(True, True, True)] * 4,
    }


def test_attention_is_dense_until_the_sparse_stage_and_is_put_back():
    model, _, _ = make(steps=1)
    stages = plan(RECIPE, [32, 48], [2, 3], sparse_from=1, warmup_steps=1)
    found = {}
    for row in train_stages(model, long_documents(), stages, seed=0):
        layer, indexer = next(iter(indexers(model).items()))
        found.setdefault(row["stage"], set()).add((layer.index_topk > 99, indexer.topk > 99))
    assert found == {
        "dense 32": {(True, True)}, "warm-up 48": {(True, True)}, "sparse 48": {(False, False)}
    }  # fmt: skip
    run = train_stages(model, long_documents(), stages, seed=0)
    next(run)
    run.close()
    assert all(layer.index_topk == indexer.topk == 3 for layer, indexer in indexers(model).items())


def test_a_warm_up_raises_the_recall_of_the_indexers():
    model, _, _ = make(steps=1)
    warm_rate = LearningRate(0.02, 0.02, 0, 0, 25)
    stages = [
        Stage("dense", 48, Recipe(LearningRate(0.02, 0.02, 2, 0, 12), BatchRamp(4, 4, 0))),
        Stage("warm-up", 48, Recipe(warm_rate, BatchRamp(4, 4, 0), attention="dense", indexer="alone")),
    ]
    held_out = Loader(long_documents(), 48, seed=77).take(6)
    recall = {}
    for row in train_stages(model, long_documents(), stages, seed=0):
        if row["step"] in (12, 25):
            with every_entry(model), attention_inputs(model) as seen, torch.no_grad():
                model.streams(held_out.input_ids, sample_ids=held_out.sample_ids)
                recall[row["stage"]] = index_recall(seen, 3)
    assert recall["warm-up"] > recall["dense"] + 0.03


def test_stages_of_one_length_read_their_rows_in_different_orders():
    model, _, _ = make(steps=1)
    read = []
    loss = model.loss
    model.loss = lambda ids, **options: read.append(ids) or loss(ids, **options)
    stages = plan(RECIPE, [24], [5], sparse_from=0, warmup_steps=2)
    of_stage = {}
    for row in train_stages(model, documents(), stages, seed=0):
        of_stage.setdefault(row["stage"], []).extend(read)
        read.clear()
    one, other = (torch.cat(rows)[:16] for rows in of_stage.values())
    assert not torch.equal(one, other)


def test_losses_beside_each_other_add_no_gradient_to_each_other():
    both, alone = make(steps=1), make(steps=1)
    beside = Recipe(both[2].rate, both[2].batch, micro_rows=2, clip_norm=1e9, indexer="beside")
    without = Recipe(both[2].rate, both[2].batch, micro_rows=2, clip_norm=1e9)
    one, other = next(train(both[0], both[1], beside)), next(train(alone[0], alone[1], without))
    assert one["loss"] == other["loss"] and one["indexer_loss"] > 0
    first, second = (weights(m, of_indexers=False) for m in (both[0], alone[0]))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_indexer_loss_of_micro_batches_adds_up():
    rows = []
    for micro_rows in (4, 3):
        model, loader, recipe = make(steps=1)
        recipe = Recipe(recipe.rate, recipe.batch, micro_rows=micro_rows, indexer="alone")
        rows.append(next(train(model, loader, recipe)))
    assert rows[0]["indexer_loss"] == pytest.approx(rows[1]["indexer_loss"], rel=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(rows[1]["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("pulled", [3, 6, 8])
def test_a_stopped_curriculum_goes_on_to_the_bit(tmp_path, pulled):
    stages = plan(RECIPE, [16, 32], [5, 4], sparse_from=1, warmup_steps=2)

    def run(seed, **options):
        model = make(steps=1, seed=seed)[0]
        return model, train_stages(model, long_documents(), stages, seed=0, **options)

    whole, rows = run(1)
    expected = {row["run_step"]: row["loss"] for row in rows}
    _, rows = run(1, folder=tmp_path, checkpoint_every=2)
    for row in rows:
        if row["run_step"] == pulled:
            break
    rows.close()
    model, rows = run(5, folder=tmp_path, checkpoint_every=2)
    again = {row["run_step"]: row["loss"] for row in rows}
    assert 1 < min(again) <= pulled + 1 and max(again) == 11
    assert again == {step: expected[step] for step in again}
    assert torch.equal(weights(model, of_indexers=False), weights(whole, of_indexers=False))
    assert torch.equal(weights(model, of_indexers=True), weights(whole, of_indexers=True))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(lengths=[]),
        dict(lengths=[32, 16]),
        dict(steps=[5]),
        dict(sparse_from=3),
        dict(sparse_from=2, warmup_steps=1),
        dict(warmup_steps=-1),
    ],
)
def test_plans_that_do_not_work_are_refused(wrong):
    right = dict(lengths=[16, 32], steps=[5, 4], sparse_from=1, warmup_steps=0)
    with pytest.raises(ValueError, match=r"^plan: got lengths=.*; correct the one that is off"):
        plan(RECIPE, **(right | wrong))


def test_rows_longer_than_the_model_and_repeated_names_are_refused():
    model = make(steps=1)[0]
    long, twice = [Stage("long", 5000, RECIPE)], [Stage("one", 16, RECIPE)] * 2
    for stages in ([], long, twice):
        with pytest.raises(ValueError, match=r"^train_stages: got stages .* the 4096 tokens"):
            next(train_stages(model, documents(), stages, seed=0))
