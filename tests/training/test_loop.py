"""The loop learns, adds up gradients exactly, and resumes to the bit, also after being killed."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.training.small_run import documents, make
from workbench.training.loader import Loader
from workbench.training.loop import mean_loss, n_predicted, train
from workbench.training.packing import best_fit
from workbench.training.parameter_groups import make_optimizers
from workbench.training.ranks import Ranks
from workbench.training.run_state import checkpoints


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_loss_falls_and_the_numbers_add_up():
    model, loader, recipe = make(steps=30)
    rows = list(train(model, loader, recipe))
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[0]["tokens"] == n_predicted(make(steps=30)[1].take(4))
    assert rows[-1]["learning_rate"] == pytest.approx(recipe.rate(29))
    assert all(row["largest_load"] >= 1 for row in rows)
    assert mean_loss(model, [loader.take(4)]) < rows[0]["loss"] - 1


def test_micro_batches_add_up_to_the_batch():
    whole, parts = make(steps=2, mtp=0, micro_rows=4), make(steps=2, mtp=0, micro_rows=3)
    # The balance loss of a row does not depend on the others, so it adds up too.
    for one, other in zip(train(*whole), train(*parts), strict=True):
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_the_bias_of_a_busy_expert_falls():
    model, loader, recipe = make(steps=1)
    counts = []
    router = model.model.layers[-1].mlp.gate
    hook = router.register_forward_hook(lambda m, i, o: counts.append(o[1].flatten().bincount(minlength=8)))
    list(train(model, loader, recipe))
    hook.remove()
    load = sum(counts)
    expected = 1e-3 * (load.float().mean() - load).sign()
    torch.testing.assert_close(router.e_score_correction_bias, expected)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path):
    whole, *rest = make(steps=9)
    expected = list(train(whole, *rest))
    first, *rest = make(steps=9)
    for row in train(first, *rest, folder=tmp_path, checkpoint_every=3):
        if row["step"] == 5:
            break
    torch.rand(7)  # the generator moves on in between
    second, *rest = make(steps=9, seed=8)  # other weights: all must come from the checkpoint
    rows = list(train(second, *rest, folder=tmp_path, checkpoint_every=3))
    assert [row["step"] for row in rows] == [4, 5, 6, 7, 8, 9]
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected[3:]]
    assert torch.equal(weights(second), weights(whole))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000006", "step-00000009"]


def test_a_killed_run_resumes_to_the_bit(tmp_path):
    expected = [row["loss"] for row in train(*make(steps=12))]
    command = [sys.executable, "-m", "tests.training.small_run", str(tmp_path), "12"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["step"] == 7:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    model, *rest = make(steps=12)
    rows = list(train(model, *rest, folder=tmp_path, checkpoint_every=2))
    assert rows[0]["step"] > 1
    assert [row["loss"] for row in rows] == expected[rows[0]["step"] - 1 :]


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    list(train(*make(steps=4), folder=tmp_path, checkpoint_every=2))
    with pytest.raises(
        ValueError, match=r"^restore: .* another run: recipe\.clip_norm: 1\.0 there, 0\.5 now"
    ):
        next(train(*make(steps=4, clip_norm=0.5), folder=tmp_path))
    model, loader, recipe = make(steps=4)
    loader.rows.input_ids[0, 0] += 1
    with pytest.raises(ValueError, match=r"^restore: .* another run: data\.checksum: \d+ there, \d+ now"):
        next(train(model, loader, recipe, folder=tmp_path))
    model, loader, recipe = make(steps=4)
    other = make_optimizers(model, 0.02)
    other[0].defaults["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"^restore: .* run: optimizers\.0\.momentum: 0\.95 there, 0\.9 now"):
        next(train(model, loader, recipe, optimizers=other, folder=tmp_path))
    newest = checkpoints(tmp_path)[-1] / "state.safetensors"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])  # one bit
    with pytest.raises(ValueError, match=r"is damaged \(state\.safetensors is not what was written"):
        next(train(*make(steps=4), folder=tmp_path))
    newest.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"is damaged .* the one before: step-00000002"):
        next(train(*make(steps=4), folder=tmp_path))


def test_a_loss_that_is_not_finite_stops_the_run():
    model, loader, recipe = make(steps=4)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.inf
    before = weights(model)
    with pytest.raises(FloatingPointError, match=r"^train: step 1 has loss .*nan"):
        next(train(model, loader, recipe))
    assert torch.equal(weights(model).nan_to_num(), before.nan_to_num())


def test_packed_documents_fill_the_rows():
    assert len(make(steps=1)[1]) == len(best_fit([len(d) for d in documents()], 24))


def test_rows_that_the_model_cannot_read_are_refused():
    model, _, recipe = make(steps=1)
    long = Loader([[1] * 5000], 5000, seed=0)
    with pytest.raises(ValueError, match=r"^train: got rows of 5000 tokens; .*max_position_embeddings=4096"):
        next(train(model, long, recipe))
    with pytest.raises(ValueError, match=r"^train: got token id 64; the model's vocab_size=64 "):
        next(train(model, Loader([[1, 64, 2]], 24, seed=0), recipe))
    with pytest.raises(ValueError, match=r"^packing: got 0 documents"):
        Loader([], 24, seed=0)
    with pytest.raises(ValueError, match=r"^mean_loss: got 1 batches without a predicted token"):
        mean_loss(model, [torch.zeros(2, 1, dtype=torch.long)])


def test_what_several_processes_do_not_do_yet_is_refused():
    class Two(Ranks):
        n_ranks = 2

    model, loader, recipe = make(steps=1, indexer="beside")
    with pytest.raises(ValueError, match=r"^train: got indexer='beside' and anticipatory=None on 2 proc"):
        next(train(model, loader, recipe, ranks=Two()))


@pytest.mark.parametrize("text", ["", "{}", '{"files": 3}', '{"files": {}, "identity"'])
def test_a_damaged_note_of_a_run_is_named(tmp_path, text):
    list(train(*make(steps=2), folder=tmp_path, checkpoint_every=1))
    (checkpoints(tmp_path)[-1] / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"^restore: .*is damaged .* the one before: step-00000001"):
        next(train(*make(steps=2), folder=tmp_path))
