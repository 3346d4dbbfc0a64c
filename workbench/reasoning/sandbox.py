"""Sandboxes for tool calls: one interface, a log of every command, and effects that happen once.

A sandbox is a folder of small files that commands change. Every command has a number. The sandbox writes
the command, its result and what it changed as one record; a command whose number it has seen is answered
from the log. So a trajectory that was killed begins again from its first command and runs through what it
did before without doing it again (fast-forward).

    number, command  ->  seen? the logged result  :  work it out, log (command, result, changes), apply

An effect is the application of its record: a record torn by a kill never had an effect. What a command
does outside of the sandbox (sends a letter) is beyond this, as beyond any log.

V4 has four kinds behind one interface: function, container, microVM, VM. Here a function is worked out in
this process; the others in a process of their own with limits. Their walls are not built, and what they
cost to start and to hold is counted, not spent: see `fleet`.

Report: section 5.2.5.
"""

import json
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, get_args

from workbench.reasoning.tasks.expressions import BadExpression, evaluate

Kind = Literal["function", "container", "microvm", "vm"]
Files = Mapping[str, str]


def work_out(command: str, files: Files) -> tuple[str, dict[str, str]]:
    """What a command answers and which files it writes; never runs its text.

    calc EXPRESSION            the value, by the bounded parser
    append FILE TEXT           adds a line; answers how many lines there are
    read FILE                  the file

    A command that is none of these, or a bad expression, is answered with a line that begins with "error".
    """
    verb, _, rest = command.partition(" ")
    if verb == "calc":
        try:
            return str(evaluate(rest)), {}
        except BadExpression as error:
            return f"error: {error}", {}
    name, _, text = rest.partition(" ")
    if verb == "append" and name:
        content = files.get(name, "") + text + "\n"
        return f"{content.count(chr(10))} lines", {name: content}
    if verb == "read":
        return files.get(name, f"error: no file {name!r}"), {}
    return f"error: {verb!r} is no command; use calc, append or read", {}


def _in_a_process(command: str, files: Files) -> tuple[str, dict[str, str]]:
    program = (
        "import json, resource, sys; from workbench.reasoning.sandbox import work_out; "
        "resource.setrlimit(resource.RLIMIT_CPU, (5, 5)); resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "print(json.dumps(work_out(*json.load(sys.stdin))))"
    )
    given = json.dumps([command, dict(files)])
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={},
    )
    result, changes = json.loads(done.stdout)
    return result, changes


class Worker(Protocol):
    """Where commands are worked out."""

    def __call__(self, command: str, files: Files) -> tuple[str, dict[str, str]]: ...


WORKERS: Mapping[Kind, Worker] = {
    "function": work_out,
    "container": _in_a_process,
    "microvm": _in_a_process,
    "vm": _in_a_process,
}


class Sandbox:
    """Files and a log. Opening a log that exists brings back its files, without a command being run.

    `executed` counts the commands worked out by this object: what a replay must not raise.

    Args:
        log: where the log is; None keeps it in memory.
        kind: where commands are worked out. Files, log and replay are the same for all.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, log: str | Path | None = None, kind: Kind = "function"):
        if kind not in get_args(Kind):
            raise ValueError(
                f"Sandbox: got the kind {kind!r}; needs one of {list(get_args(Kind))}; choose one"
            )
        self.kind = kind
        self.path = None if log is None else Path(log)
        self.files: dict[str, str] = {}
        self.log: list[tuple[str, str]] = []
        self.executed = 0
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        content, whole = path.read_bytes(), 0
        for line in content.splitlines(keepends=True):
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
                break
            command, result, changes = json.loads(body)
            self.log.append((command, result))
            self.files |= changes
            whole += len(line)
        with open(path, "r+b") as file:
            file.truncate(whole)

    def execute(self, number: int, command: str) -> str:
        """The result of a trajectory's command, worked out now or, if it was before, from the log.

        Raises:
            ValueError: a number past the next one, or another command under a number that is taken.
        """
        if number > len(self.log) or number < 0:
            raise ValueError(
                f"Sandbox.execute: got command {number} after {len(self.log)}; needs the next or an earlier "
                f"one; number commands from 0 without gaps"
            )
        if number < len(self.log):
            logged, result = self.log[number]
            if logged != command:
                raise ValueError(
                    f"Sandbox.execute: got {command!r} as command {number}, which was {logged!r}; needs the "
                    f"same trajectory; open another sandbox for another one"
                )
            return result
        result, changes = WORKERS[self.kind](command, self.files)
        self.executed += 1
        if self.path is not None:
            body = json.dumps([command, result, changes]).encode()
            with open(self.path, "ab") as file:
                file.write(b"%08x %s\n" % (zlib.crc32(body), body))
        self.log.append((command, result))
        self.files |= changes
        return result
