"""Two and four gloo processes give the numbers of one, however the work is cut."""

import shutil

import pytest

from tests.training.distributed.jobs import all_ways, one_run, packings, taken_up, trades, traffic
from tests.training.distributed.processes import on_processes
from workbench.training.run_state import checkpoints

WAYS = [(1, 1), (1, 2), (2, 1), (2, 2)]  # (n_context, n_expert)


@pytest.fixture(scope="module")
def one():
    return one_run()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, and where they left a checkpoint of step 4 of 6."""
    folder = tmp_path_factory.mktemp("two")
    return *on_processes(2, all_ways, folder, WAYS, str(folder / "run")), folder / "run"


def same(rows, expected):
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row[0] == other[0]
        assert row[1] == pytest.approx(other[1], rel=1e-5)
        assert row[2] == pytest.approx(other[2], rel=1e-4)
        assert row[3] == pytest.approx(other[3], rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(one, two, way):
    first, second, _ = two
    found = first[WAYS.index(way)]
    assert found == second[WAYS.index(way)]
    same(found["rows"], one["rows"])
    assert found["weights"].keys() == one["weights"].keys()
    for name, size in one["weights"].items():
        # Fresh streams are alike: the mixing's gradients are mostly rounding, which AdamW makes large.
        if "hc" not in name:
            assert found["weights"][name] == pytest.approx(size, rel=1e-3, abs=1e-3), name
    assert found["held_out"] == pytest.approx(one["held_out"], rel=1e-5)


def test_one_process_takes_up_the_run_of_two(two, tmp_path):
    folder = shutil.copytree(two[2], tmp_path / "run")
    assert [path.name for path in checkpoints(folder)] == ["step-00000002", "step-00000004"]
    assert len(list(checkpoints(folder)[-1].glob("*.safetensors"))) == 2
    taken = one_run(steps=6, folder=folder)
    same(taken["rows"], one_run(steps=6)["rows"][4:])


def test_two_processes_take_up_the_run_of_one_and_a_cut_file_is_noticed(tmp_path):
    expected = one_run(steps=6, folder=tmp_path / "run", checkpoint_every=4)
    shutil.rmtree(checkpoints(tmp_path / "run")[-1])
    first, second = on_processes(2, taken_up, tmp_path, 1, 2, str(tmp_path / "run"))
    assert first == second
    same(first["rows"], expected["rows"][4:])
    newest = checkpoints(tmp_path / "run")[-1]
    part = next(newest.glob("shard-00002*"))
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"^restore: .* is damaged \(shard-00002.* the one before: step-000"):
        one_run(steps=6, folder=tmp_path / "run")


def test_four_processes_take_up_the_run_of_two_and_cut_rows_as_two_do(two, tmp_path):
    folder = shutil.copytree(two[2], tmp_path / "run")
    results = on_processes(4, taken_up, tmp_path, 2, 2, str(folder))
    assert all(result == results[0] for result in results)
    same(results[0]["rows"], one_run(steps=6)["rows"][4:])


def test_trades_and_their_gradients(tmp_path):
    first, second = on_processes(2, trades, tmp_path)
    # Process 0 sends nothing to itself and one row to process 1; that sends one row to 0, two to itself.
    assert first == [[10.0], [2.0], [1.0, 5.0, 2.0, 5.0], [3.0, 3.0]]
    assert second == [[1.0, 11.0, 11.0], [1.0, 2.0, 2.0], [1.0, 5.0, 2.0, 5.0], [3.0, 3.0]]


@pytest.mark.parametrize(("n", "row_tokens"), [(2, 36), (3, 51)])
def test_rows_cut_anywhere_have_the_loss_and_gradients_of_whole_rows(tmp_path, n, row_tokens):
    for result in on_processes(n, packings, tmp_path, 6, row_tokens):
        assert result["cut"] > 4
        assert max(result["worst"].values()) < 2e-5, result["worst"]


def test_the_entries_that_travel_are_as_few_as_the_report_says(tmp_path):
    n, rows, s, c, index_c, window = 2, 2, 64, 32, 16, 8
    taken = on_processes(n, traffic, tmp_path, n * s)[1]
    keys = rows * (window - 1) * c
    # HCA: the last m raw values and gates, then s/m + 1 entries. CSA: two series, 2m tokens, and the same
    # again for its indexer.
    hca = rows * 8 * 2 * c + rows * (s // 8 + 1) * c
    csa = rows * 2 * 4 * 4 * (c + index_c) + rows * (s // 4 + 1) * (c + index_c)
    assert taken == [keys, keys + hca, keys + csa, keys + hca, keys + csa]
