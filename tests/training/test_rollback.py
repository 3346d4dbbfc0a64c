"""A guarded run goes back to before a spike, answers it as told, and resumes to the bit."""

import json
import math
import shutil

import pytest
import torch

from tests.training.small_run import make
from workbench.training.anticipatory import AnticipatoryRouting
from workbench.training.loop import Recipe, train
from workbench.training.rollback import Answer, read_rollbacks, train_guarded
from workbench.training.run_state import checkpoints
from workbench.training.schedules import LearningRate
from workbench.training.spikes import SpikeRule

RULE = SpikeRule(window=6, threshold=4.0, least_rise=0.3)
STEPS = 26


def rising():
    """A rate that rises until the run breaks."""
    model, loader, recipe = make(steps=STEPS)
    rate = LearningRate(peak=3.0, final=3.0, warmup_steps=STEPS, decay_steps=0, total_steps=STEPS)
    return model, loader, Recipe(rate, recipe.batch, micro_rows=4)


def guarded(folder, run=None, **answer):
    model, loader, recipe = run or rising()
    return train_guarded(
        model, loader, recipe, folder=folder, rule=RULE, answer=Answer(**answer), checkpoint_every=4
    )


@pytest.fixture(scope="module")
def plain_rows(tmp_path_factory):
    return list(guarded(tmp_path_factory.mktemp("plain"), delay=0, most=2, back=2))


def test_after_a_plain_rollback_the_same_spike_comes_again(plain_rows):
    spikes = [i for i, row in enumerate(plain_rows) if row["is_spike"]]
    assert len(spikes) >= 3
    first, second = spikes[:2]
    spike = plain_rows[first]["step"]
    assert spike > RULE.window
    # The newest checkpoint, of every fourth step, that lies two steps or more before the spike.
    begin = (spike - 2) // 4 * 4
    again = plain_rows[first + 1 : second + 1]
    assert [row["step"] for row in again] == list(range(begin + 1, spike + 1))
    before = plain_rows[first - len(again) + 1 : first + 1]
    assert [row["loss"] for row in again] == [row["loss"] for row in before]
    assert [row["rollbacks"] for row in plain_rows[: first + 2]] == [0] * (first + 1) + [1]


def test_after_the_last_rollback_spikes_are_only_reported(plain_rows):
    model, loader, recipe = rising()
    unguarded = [row["loss"] for row in train(model, loader, recipe)]
    last = [row for row in plain_rows if row["rollbacks"] == 2]
    assert [row["step"] for row in last] == list(range(STEPS - len(last) + 1, STEPS + 1))
    assert [row["loss"] for row in last] == unguarded[-len(last) :]


@pytest.mark.parametrize(("spike", "back", "to"), [(9, 1, 8), (9, 2, 4), (8, 1, 4), (9, 4, 4), (5, 4, 4)])
def test_the_checkpoint_lies_far_enough_before_the_spike(tmp_path, spike, back, to):
    model, loader, recipe = make(steps=STEPS)
    loss, calls = model.loss, 0

    def breaking(*args, **options):
        nonlocal calls
        calls += 1
        return loss(*args, **options) * (math.inf if calls == 2 * spike else 1)

    model.loss = breaking
    run = train_guarded(model, loader, recipe, folder=tmp_path, rule=SpikeRule(window=90),
                        answer=Answer(delay=0, back=back), checkpoint_every=4)  # fmt: skip
    for row in run:
        if row["rollbacks"]:
            break
    run.close()
    [rollback] = read_rollbacks(tmp_path)
    assert (rollback.spike, rollback.to, row["step"]) == (spike, to, to + 1)


def test_with_a_delay_the_steps_after_a_rollback_are_routed_by_older_weights(tmp_path):
    rows = list(guarded(tmp_path, delay=2, steps=3, most=1, back=2))
    [rollback] = read_rollbacks(tmp_path)
    after = [row for row in rows if row["rollbacks"] == 1]
    assert [row["is_anticipatory"] for row in after] == [True] * 3 + [False] * (len(after) - 3)
    assert after[0]["step"] == rollback.to + 1 and after[-1]["step"] == STEPS
    # The same as a run that routes so at these steps from the start.
    model, loader, recipe = rising()
    routing = AnticipatoryRouting(model, 2, begin=rollback.to, end=rollback.to + 3)
    expected = [row["loss"] for row in train(model, loader, recipe, anticipatory=routing)]
    assert [row["loss"] for row in after] == expected[rollback.to :]


def test_skipping_leaves_out_the_rows_from_the_checkpoint_to_the_spike(tmp_path):
    rows = list(guarded(tmp_path, delay=0, skip=True, most=1, back=2))
    [rollback] = read_rollbacks(tmp_path)
    assert rollback.skipped == 4 * (rollback.spike - rollback.to)
    after = [row for row in rows if row["rollbacks"] == 1]
    # The same as a run that throws these rows away in passing.
    model, loader, recipe = rising()
    expected = []
    for row in train(model, loader, recipe):
        expected.append(row["loss"])
        if row["step"] == rollback.to:
            loader.take(rollback.skipped)
    assert [row["loss"] for row in after] == expected[rollback.to :]
    # Resumed, it is still beyond them.
    shutil.rmtree(checkpoints(tmp_path)[-1])
    again = list(guarded(tmp_path, delay=0, skip=True, most=1, back=2))
    assert [row["loss"] for row in again] == expected[again[0]["step"] - 1 :]


@pytest.mark.parametrize("pulled", range(3, 30, 4))
def test_stopped_at_any_row_it_goes_on_as_if_it_had_not_been(tmp_path, pulled):
    options = dict(delay=1, steps=5, most=2, back=2)
    whole = list(guarded(tmp_path / "whole", **options))
    run = guarded(tmp_path / "parts", **options)
    first = [next(run) for _ in range(min(pulled, len(whole) - 1))]
    run.close()
    rest = list(guarded(tmp_path / "parts", **options))

    def numbers(rows):
        return [(row["step"], row["loss"], row["is_spike"]) for row in rows]

    # Rows since the last checkpoint come twice; a spike that was seen but not yet answered is seen again.
    assert numbers(rest) == numbers(whole[len(whole) - len(rest) :])
    assert len(first) + len(rest) >= len(whole)


def test_killed_between_note_and_removal_it_removes_first(tmp_path):
    run = guarded(tmp_path, most=0)
    for row in run:
        if row["step"] == 9:
            break
    run.close()
    (tmp_path / "rollbacks.json").write_text(json.dumps([{"spike": 9, "to": 4, "is_done": False}]))
    row = next(guarded(tmp_path, delay=0))
    assert (row["step"], row["rollbacks"]) == (5, 1)
    assert read_rollbacks(tmp_path)[0].is_done


def test_a_loss_that_is_not_finite_is_a_spike(tmp_path):
    model, loader, recipe = make(steps=12)
    loss, calls = model.loss, 0

    def breaking(*args, **options):  # once, as a fault of the machine would be
        nonlocal calls
        calls += 1
        return loss(*args, **options) * (math.inf if calls == 2 * 7 else 1)

    model.loss = breaking
    run = train_guarded(model, loader, recipe, folder=tmp_path, rule=RULE, answer=Answer(delay=0),
                        checkpoint_every=4)  # fmt: skip
    rows = list(run)
    plain, *rest = make(steps=12)
    expected = [row["loss"] for row in train(plain, *rest)]
    assert [row["step"] for row in rows] == [*range(1, 7), *range(5, 13)]
    assert [row["loss"] for row in rows[6:]] == expected[4:]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_nothing_to_go_back_to_and_bad_answers(tmp_path):
    model, loader, recipe = make(steps=4)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.inf
    with pytest.raises(FloatingPointError, match=r"^train: step 1 "):
        list(guarded(tmp_path, run=(model, loader, recipe)))
    with pytest.raises(ValueError, match=r"^train_guarded: got back=5 with checkpoint_every=4"):
        next(guarded(tmp_path, back=5))
    with pytest.raises(ValueError, match=r"^Answer: got delay=-1"):
        Answer(delay=-1)
    with pytest.raises(ValueError, match=r"^Answer: got skip with delay=2; needs one remedy"):
        Answer(delay=2, skip=True)
    (tmp_path / "rollbacks.json").write_text("[{]")
    with pytest.raises(ValueError, match=r"^train_guarded: .*rollbacks.json is damaged"):
        next(guarded(tmp_path))
