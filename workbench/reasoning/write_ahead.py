"""A log of every token of a rollout, written before it is used: what a killed rollout goes on from.

    one line of JSON that says which rollout it is, then records: count, checksum, rows, tokens, logprobs

A record holds one step's tokens of all running rows. A record torn by a kill is dropped; its tokens are
drawn again, from the same random numbers.

Report: section 5.2.3.
"""

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_HEAD = struct.Struct("<II")  # rows of the record, CRC-32 of its body


class WriteAheadLog:
    """The log of one rollout. Opening one that exists reads it, cuts a torn tail off and goes on behind it.

    `tokens[row]` and `logprobs[row]` are what the log holds.

    Args:
        rows: of the rollout.
        identity: what must not change between a run and its resumption (prompts, seed, sampling).

    Raises:
        ValueError: the file is a log of another rollout, or no log.
    """

    def __init__(self, path: str | Path, rows: int, identity: Mapping[str, Any]):
        self.path = Path(path)
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.logprobs: list[list[float]] = [[] for _ in range(rows)]
        first = (json.dumps({"rows": rows, **identity}, sort_keys=True, default=str) + "\n").encode()
        if self.path.exists():
            content = self.path.read_bytes()
            if not content.startswith(first):
                # A kill may also tear the first line: then nothing was logged.
                if not first.startswith(content):
                    raise ValueError(
                        f"WriteAheadLog: {self.path} is of another rollout; needs the same prompts, seed, "
                        f"sampling and policy; give another path, or remove the file to start again"
                    )
                self.path.write_bytes(first)
            else:
                whole = self._read(content, len(first))
                with open(self.path, "r+b") as file:
                    file.truncate(whole)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(first)
        self._file = open(self.path, "ab")  # noqa: SIM115 - stays open for the life of the log

    def _read(self, content: bytes, at: int) -> int:
        """Read whole records from `at`; -> where the last of them ends."""
        while at + _HEAD.size <= len(content):
            count, checksum = _HEAD.unpack_from(content, at)
            body = content[at + _HEAD.size : at + _HEAD.size + 12 * count]
            if len(body) < 12 * count or zlib.crc32(body) != checksum:
                break
            values = struct.unpack(f"<{2 * count}i{count}f", body)
            for row, token, logprob in zip(
                values[:count], values[count : 2 * count], values[2 * count :], strict=True
            ):
                self.tokens[row].append(token)
                self.logprobs[row].append(logprob)
            at += _HEAD.size + len(body)
        return at

    def append(self, rows: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """Write one step, so that it survives the end of this process."""
        n = len(rows)
        body = struct.pack(f"<{2 * n}i{n}f", *rows, *tokens, *logprobs)
        self._file.write(_HEAD.pack(n, zlib.crc32(body)) + body)
        self._file.flush()

    def sync(self) -> None:
        """Have the disk hold what was written, so that it survives the end of the machine too."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
