"""Mini-batches from disk are those from memory, and less stands in memory at once."""

import tracemalloc

import numpy as np
import pytest

from workbench.reasoning.rollout_store import Metadata, RolloutStore, cut, write_rollouts

LENGTHS = np.random.default_rng(0).integers(1, 900, size=200).tolist()


def answers():
    for row, n in enumerate(LENGTHS):
        rng = np.random.default_rng(row)
        fields = {
            "tokens": rng.integers(0, 99, n, dtype=np.int32),
            "logprobs": rng.random(n, dtype=np.float32),
        }
        yield Metadata(group=row // 4, tokens=n, reward=float(row % 2)), fields


def test_batches_hold_the_same_numbers_as_in_memory(tmp_path):
    store, everything = write_rollouts(tmp_path, answers()), list(answers())
    seen: list[int] = []
    for rows, loaded in store.batches(2000, seed=3):
        assert sum(LENGTHS[row] for row in rows) <= 2000
        for row, own in zip(rows, loaded, strict=True):
            for name, values in everything[row][1].items():
                np.testing.assert_array_equal(own[name], values)
            assert store.metadata[row] == everything[row][0]
        seen += rows
    assert seen == np.random.default_rng(3).permutation(200).tolist()
    assert [row.tokens for row in RolloutStore(tmp_path).metadata] == LENGTHS


def test_a_pass_over_the_batches_needs_the_memory_of_one(tmp_path):
    store = write_rollouts(tmp_path, answers())
    tracemalloc.start()
    for _ in store.batches(2000, seed=0):
        pass
    lean = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    everything = [fields for _, fields in answers()]
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(everything) == 200 and whole > 5 * lean


def test_cutting_fills_up_to_the_budget_and_no_further():
    assert cut([0, 1, 2, 3], [5, 5, 11, 1], 10) == [[0, 1], [2], [3]]


def test_fields_that_do_not_fit_are_refused(tmp_path):
    short = [(Metadata(0, 3, 0.0), {"tokens": np.zeros(2, dtype=np.int32)})]
    with pytest.raises(ValueError, match="a number for each token"):
        write_rollouts(tmp_path / "a", short)
    with pytest.raises(ValueError, match="write_rollouts made"):
        RolloutStore(tmp_path / "b")
