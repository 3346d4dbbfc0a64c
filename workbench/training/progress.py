"""A run while it goes: a bar with speed and time left, and a table of its rows on disk.

Both take the rows that `loop.train` yields and pass them on:

    for row in with_bar(with_table(train(model, loader, recipe, folder=folder), folder / "rows.csv"), steps):
        ...
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from workbench.files import write_whole


def with_bar(
    rows: Iterable[dict[str, Any]], total_steps: int, *, is_shown: bool = True
) -> Iterator[dict[str, Any]]:
    """Pass rows on beside a bar: steps done, time left, loss, tokens a second.

    A run that was resumed begins its bar where it begins. tqdm draws a widget in a notebook, a line in a
    terminal.
    """
    with tqdm(total=total_steps, unit="step", dynamic_ncols=True, disable=not is_shown) as bar:
        for row in rows:
            if bar.n == 0 and row["step"] > 1:
                bar.initial = bar.n = row["step"] - 1
                bar.last_print_n = bar.n
            bar.set_postfix(
                loss=f"{row['loss']:.3f}", tokens_per_s=f"{row['tokens_per_s']:,.0f}", refresh=False
            )
            bar.update(1)
            yield row


def with_table(rows: Iterable[dict[str, Any]], path: str | Path) -> Iterator[dict[str, Any]]:
    """Pass rows on and add each to a CSV file first.

    A run that goes back to an earlier step takes the rows after it out of the file, so that no step stands
    there twice. A kill between a checkpoint and its row leaves that one row out.

    Raises:
        ValueError: the file is another table, or a row has other columns than the rows before it.
    """
    path, columns = Path(path), list[str]()
    for row in rows:
        if not columns:
            columns = list(row)
            write_whole(path, _csv([columns, *_earlier(path, row["step"], columns)]))
        elif list(row) != columns:
            raise ValueError(
                f"with_table: got a row with the columns {list(row)}; earlier rows of {path} have {columns}; "
                f"give each stage of a run a table of its own"
            )
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(_csv([list(row.values())]))
        yield row


def _earlier(path: Path, step: int, columns: list[str]) -> list[list[str]]:
    """The whole rows of steps before this one."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        found, *rows = list(csv.reader(file)) or [[]]
    if found != columns:
        raise ValueError(
            f"with_table: {path} has the columns {found}; this run writes {columns}; give another file"
        )
    return [row for row in rows if len(row) == len(columns) and int(row[columns.index("step")]) < step]


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
