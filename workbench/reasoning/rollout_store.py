"""Rollouts on disk: light fields of every answer in memory, heavy fields of every token read when needed.

A batch of long answers is shuffled and cut into mini-batches by its metadata (lengths, groups, rewards).
Only when a mini-batch is due are its tokens, log-probabilities and masks read, and they go when it is
done. The whole batch never stands in memory at once.

Report: section 5.2.4.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Fields = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Metadata:
    """What is known of an answer without its tokens."""

    group: int
    tokens: int
    reward: float


class RolloutStore:
    """Answers in a folder: a file for each field of the tokens, all answers one after the other.

    Raises:
        ValueError: the folder holds no store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "index.json").is_file():
            raise ValueError(
                f"RolloutStore: {folder} has no index.json; needs a folder that write_rollouts made; write it"
            )
        index = json.loads((self.folder / "index.json").read_text())
        self.metadata = [Metadata(**row) for row in index["rows"]]
        self.fields: dict[str, str] = index["fields"]
        ends = np.cumsum([0, *(row.tokens for row in self.metadata)])
        self._begin = ends.tolist()

    def __len__(self) -> int:
        return len(self.metadata)

    def order(self, seed: int) -> list[int]:
        """The answers in random order, by metadata alone."""
        return np.random.default_rng(seed).permutation(len(self)).tolist()

    def load(self, rows: Sequence[int]) -> list[Fields]:
        """The token fields of some answers, and nothing else, from the disk."""
        found: list[Fields] = [{} for _ in rows]
        for name, dtype in self.fields.items():
            with open(self.folder / f"{name}.bin", "rb") as file:
                for own, row in zip(found, rows, strict=True):
                    file.seek(self._begin[row] * np.dtype(dtype).itemsize)
                    own[name] = np.fromfile(file, dtype=dtype, count=self.metadata[row].tokens)
        return found

    def batches(self, token_budget: int, seed: int) -> Iterator[tuple[list[int], list[Fields]]]:
        """Mini-batches of at most token_budget tokens (or one longer answer), loaded when asked for."""
        for rows in cut(self.order(seed), [row.tokens for row in self.metadata], token_budget):
            yield rows, self.load(rows)


def write_rollouts(
    folder: str | Path, answers: Iterable[tuple[Metadata, Mapping[str, NDArray[np.generic]]]]
) -> RolloutStore:
    """Write answers as they come, one at a time: field name -> numbers, one a token.

    Raises:
        ValueError: an answer whose fields have other names or lengths than its metadata and the first's.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, float]] = []
    fields: dict[str, str] = {}
    files = {}
    try:
        for metadata, own in answers:
            if not fields:
                fields = {name: values.dtype.str for name, values in own.items()}
                files = {name: open(target / f"{name}.bin", "wb") for name in fields}  # noqa: SIM115
            sizes = {name: len(values) for name, values in own.items()}
            if sizes != dict.fromkeys(fields, metadata.tokens):
                raise ValueError(
                    f"write_rollouts: got fields {sizes} for an answer of {metadata.tokens} tokens; needs "
                    f"{list(fields)}, a number for each token; give them"
                )
            for name, values in own.items():
                values.astype(fields[name]).tofile(files[name])
            rows.append(vars(metadata).copy())
    finally:
        for file in files.values():
            file.close()
    (target / "index.json").write_text(json.dumps({"fields": fields, "rows": rows}))
    return RolloutStore(target)


def cut(order: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut an order of answers into runs of at most token_budget tokens."""
    batches: list[list[int]] = []
    room = 0
    for row in order:
        if not batches or lengths[row] > room:
            batches.append([])
            room = token_budget
        batches[-1].append(row)
        room -= lengths[row]
    return batches
