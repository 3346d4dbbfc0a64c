"""The claims of a run: gathered, written, and held against the committed ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from workbench import report
from workbench.files import write_whole
from workbench.runner.execution import Outcome


def write_claims(path: Path, profile: str, seed: int, outcomes: Iterable[Outcome]) -> None:
    """Write the rows of every claims table to one file, in the order of the notebooks.

    The file: {"profile", "seed", "claims": [{"id", "claim", "printed", "ours", "how", "verdict",
    "notebook"}]}.
    """
    _write(path, profile, seed, [row for o in outcomes for row in _rows(o)])


def commit_claims(path: Path, series: Sequence[str], seed: int, outcomes: Sequence[Outcome]) -> None:
    """Put the rows of a full run's notebooks that passed in place of those that the file has of them.

    Rows of other notebooks of the series stay as they are. A run with another seed than the file's
    changes it only if all of the series passed, so that one file never mixes seeds.
    """
    passed = {o.job.name: _rows(o) for o in outcomes if o.status == "passed"}
    before: dict[str, Any] = {"seed": seed, "claims": []}
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
    if before["seed"] != seed and set(passed) != set(series):
        return
    kept = [row for row in before["claims"] if row["notebook"] in set(series) - set(passed)]
    _write(path, "full", seed, [*kept, *(row for rows in passed.values() for row in rows)])


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [row | {"notebook": outcome.job.name} for row in outcome.claims]


def _write(path: Path, profile: str, seed: int, rows: Iterable[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: row["notebook"])  # stable: a table keeps its order
    document = {"profile": profile, "seed": seed, "claims": ordered}
    write_whole(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def read_claims(path: Path) -> list[dict[str, Any]]:
    """The rows of a claims file.

    Raises:
        ValueError: the file is not one that `write_claims` wrote.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["claims"]
        return [{name: str(row[name]) for name in ("id", "notebook", "verdict", "ours")} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"run: {path} is not a claims file ({error!r}); restore it, or write it anew by a full run"
        ) from error


def changed_verdicts(before: Iterable[dict[str, Any]], outcomes: Sequence[Outcome]) -> list[str]:
    """What the notebooks that passed say differently from the committed rows, one line each.

    Claims that depend on the profile are left out, and so are those that the rows do not have yet.
    """
    ledger = report.load_claims()
    now = {(o.job.name, row["id"]): row for o in outcomes for row in o.claims}
    ran = {o.job.name for o in outcomes if o.status == "passed"}
    changes = []
    for row in before:
        known = ledger.get(row["id"])
        if row["notebook"] not in ran or (known and known.profile_dependent):
            continue
        found = now.get((row["notebook"], row["id"]))
        if found is None:
            changes.append(f"{row['id']} in {row['notebook']}: was {row['verdict']!r}, is no longer reported")
        elif found["verdict"] != row["verdict"]:
            changes.append(
                f"{row['id']} in {row['notebook']}: was {row['verdict']!r} (ours {row['ours']}), "
                f"is {found['verdict']!r} (ours {found['ours']})"
            )
    return changes


def tally(verdicts: Iterable[str]) -> str:
    """How often each verdict fell, in the order of `report.VERDICTS`: "9 matches, 2 differs"."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in report.VERDICTS if counts[verdict])
