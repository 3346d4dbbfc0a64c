"""The bar and the table that go beside a run."""

import io

import pandas as pd
import pytest

from tests.training.small_run import make
from workbench.training import progress
from workbench.training.loop import train
from workbench.training.progress import with_bar, with_table


def made(steps, value=1.0):
    return [{"step": step, "loss": value * step, "tokens_per_s": 1e3} for step in steps]


def test_a_table_holds_every_row_as_it_comes(tmp_path):
    path = tmp_path / "run" / "rows.csv"
    for i, row in enumerate(with_table(made(range(1, 4)), path), start=1):
        table = pd.read_csv(path)
        assert len(table) == i
        assert dict(table.iloc[-1]) == row


def test_a_resumed_run_s_table_has_every_step_once(tmp_path):
    path = tmp_path / "rows.csv"
    rows = train(*make(6), folder=tmp_path / "run", checkpoint_every=2)
    for row in with_table(rows, path):
        if row["step"] == 5:
            rows.close()
            break
    with path.open("a") as file:
        file.write("6,7")  # what a kill may leave
    again = list(with_table(train(*make(6), folder=tmp_path / "run"), path))
    assert [row["step"] for row in again] == [5, 6]
    table = pd.read_csv(path)
    assert list(table["step"]) == [1, 2, 3, 4, 5, 6]
    whole = [row["loss"] for row in train(*make(6))]
    assert list(table["loss"]) == whole


def test_a_table_of_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("name,price\napple,3\n")
    with pytest.raises(ValueError, match=r"has the columns \['name', 'price'\]; this run writes \['step'"):
        next(with_table(made([1]), path))
    assert path.read_text() == "name,price\napple,3\n"
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0, "is_spike": True}]
    with pytest.raises(ValueError, match=r"give each stage of a run a table of its own"):
        list(with_table(rows, tmp_path / "other.csv"))


def test_a_bar_says_how_far_a_run_is_and_begins_where_it_resumes(monkeypatch):
    out = io.StringIO()
    real = progress.tqdm
    monkeypatch.setattr(progress, "tqdm", lambda **options: real(**options, file=out, mininterval=0))
    rows = made([5, 6, 7])
    assert list(with_bar(rows, 10)) == rows
    text = out.getvalue()
    assert "7/10" in text and "loss=7.000" in text and "tokens_per_s=1,000" in text
    assert "5/10" in text
    assert "1/10" not in text and "3/10" not in text
    out.truncate(0)
    assert list(with_bar(rows, 10, is_shown=False)) == rows
    assert not out.getvalue().strip("\0")
