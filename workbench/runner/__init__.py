"""The runner: the notebook series executed headless, its pages and the report card.

`python -m workbench run` calls `run`. Everything is made in a folder of this run's own inside the
build folder and moved to its place when whole, so an interruption or a second run finds no halves.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from workbench import report
from workbench.runner import pages, results
from workbench.runner.console import Console
from workbench.runner.execution import Execution, Outcome
from workbench.runner.jobs import Job, plan

__all__ = ["Interrupted", "run"]

WATCH_S = 0.25

# What papermill would log about a kernel that died stands in the outcome, in the user's words.
logging.getLogger("papermill").addHandler(logging.NullHandler())


class Interrupted(BaseException):
    """The run was asked to stop by a signal (its number is `signum`), and has cleaned up."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run(
    root: Path,
    profile: str = "smoke",
    seed: int = 0,
    notebooks: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
    jobs: int | None = None,
    output: Path = Path("build"),
) -> bool:
    """Execute notebooks, write pages, claims and the report card; whether all went as it should.

    `notebooks` are names or numbers, all where empty; `overrides` are parameters as text; `jobs` is
    how many run at a time, the cores by default: with more than one, each gets one thread.
    A smoke run also fails where a verdict that does not depend on the profile differs from the
    committed one. A full run writes the committed claims of each notebook that passed.

    Raises:
        ValueError: as `plan`, before anything starts.
        Interrupted: SIGINT or SIGTERM came; no kernel is left, and what had ended is in its place.
    """
    queue = plan(root, profile, seed, notebooks, overrides)
    workers = min(jobs or _cores(), len(queue))
    output = root / output
    folder = output / f".run-{uuid.uuid4().hex[:8]}"
    committed = root / "figures" / "claims.json"
    is_compared = profile == "smoke" and not overrides and committed.is_file()
    before = results.read_claims(committed) if is_compared else []
    console = Console([job.name for job in queue])
    console.say(
        f"{len(queue)} notebook{'s' * (len(queue) > 1)}, {profile} profile, seed {seed}, {workers} at a time"
    )
    try:
        with _signals_raise():
            outcomes = _execute([j for j in queue if not j.comes_last], folder, output, workers, console)
            # The last notebooks, such as the report card, read this file.
            results.write_claims(folder / "claims.json", profile, seed, outcomes)
            outcomes += _execute([j for j in queue if j.comes_last], folder, output, workers, console)
            outcomes.sort(key=lambda outcome: outcome.job.name)
            results.write_claims(output / "claims.json", profile, seed, outcomes)
            all_passed = all(outcome.status == "passed" for outcome in outcomes)
            changes = results.changed_verdicts(before, outcomes)
            if profile == "full" and not overrides:
                series = [job.name for job in plan(root, profile, seed)]
                results.commit_claims(committed, series, seed, outcomes)
            _report(console, root, output, outcomes, changes, f"{profile} profile, seed {seed}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return all_passed and not changes


def _execute(
    jobs: Sequence[Job], folder: Path, output: Path, workers: int, console: Console
) -> list[Outcome]:
    """Run notebooks side by side; each one's files go to their place as it ends."""
    outcomes = []
    executions = [Execution(job, folder, 1 if workers > 1 else None) for job in jobs]
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(_execute_one, execution) for execution in executions}
        try:
            while pending:
                console.running([execution for execution in executions if execution.is_running])
                done, pending = wait(pending, timeout=WATCH_S, return_when=FIRST_COMPLETED)
                for execution in executions:
                    execution.watch()
                for future in done:
                    outcome = future.result()
                    _publish(outcome, folder, output)
                    console.ended(
                        outcome, f"open it: jupyter lab {_shown(output / 'notebooks' / outcome.copy.name)}"
                    )
                    outcomes.append(outcome)
        except BaseException:
            for future in pending:
                future.cancel()
            while pending:
                for execution in executions:
                    execution.kill("interrupted")
                _, pending = wait(pending, timeout=WATCH_S)
            raise
    return outcomes


def _execute_one(execution: Execution) -> Outcome:
    outcome = execution.run()
    if outcome.status != "interrupted":
        try:
            pages.write_page(outcome.copy, outcome.job.path.parent)
        except Exception as error:  # a page that cannot be made is this notebook's failure, not the run's
            told = f"its HTML page could not be written: {type(error).__name__}: {error}"
            return dataclasses.replace(outcome, status="failed", failure=f"{outcome.failure}\n{told}".strip())
    return outcome


def _publish(outcome: Outcome, folder: Path, output: Path) -> None:
    number = outcome.job.name.partition("_")[0]
    made = [*folder.glob(f"notebooks/{outcome.job.name}.*"), *folder.glob(f"figures/{number}_*.json")]
    for path in made:
        place = output / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)


def _report(
    console: Console,
    root: Path,
    output: Path,
    outcomes: Sequence[Outcome],
    changes: Sequence[str],
    heading: str,
) -> None:
    """Write the card, the index and the script they need; print the run's last words."""
    card = report.card(output / "claims.json")
    totals = results.tally(row.verdict for row in card)
    report.write_page(card, output / "report_card.html")
    pages.write_assets(output)
    pages.write_index(output, outcomes, totals, heading)
    console.say()
    for outcome in outcomes:
        console.say(console.line(outcome))
    console.say(f"\nreport card  {totals}")
    console.say(f"             {_shown(output / 'report_card.html')}")
    console.say(f"notebooks    {_shown(output / 'index.html')}: open it for every page and picture")
    places = [place for place in (root / "figures", output / "figures") if any(place.glob("*.json"))]
    console.say(
        f"pictures     {', '.join(_shown(place) for place in places) or 'none'} (as data, for plotly)"
    )
    if changes:
        console.say(
            "\nVERDICTS DIFFER from figures/claims.json:\n  " + "\n  ".join(changes) + "\n"
            "  mend what changed them; or, if they are right now, commit a full run: make run PROFILE=full"
        )


def _shown(path: Path) -> str:
    """A path as short as it stays right: from the working folder where it lies inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _cores() -> int:
    # A container or a batch system may allow fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; later ones do not disturb the cleaning up."""

    def stop(signum: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
