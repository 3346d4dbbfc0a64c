"""Results of runs that take long, kept with what made them: settings, command, versions, seconds.

A result is found again by its settings alone. Whoever changes the code that made it removes the file, and
the next run makes it anew; the code's state is not part of the key.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from workbench.files import write_whole

FOLDER = Path(__file__).parents[1] / "data" / "studies"


class Records:
    """A JSON file of results, one for each different `settings`.

    Committed files lie in the package's data, so that a notebook, a figure and an explorer find them
    wherever the package is installed.

    Args:
        path: the file; it need not exist.
        command: what makes all of it anew, for the reader.
        keeps: whether results found in the file are used and new ones are written to it.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: str | Path, command: str, *, keeps: bool = True):
        self.path, self.command, self.keeps = Path(path), command, keeps
        self.found: dict[str, dict[str, Any]] = {}
        if keeps and self.path.is_file():
            try:
                rows = json.loads(self.path.read_text(encoding="utf-8"))["results"]
                self.found = {_key(row["settings"]): row for row in rows}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"Records: {self.path} is damaged ({error!r}); needs a list of results; remove it, and "
                    f"`{command}` makes it anew"
                ) from error

    def get(self, settings: Mapping[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result for these settings: from the file, or of `run` now, which is then written there."""
        key = _key(settings)
        if key not in self.found:
            begun = time.process_time()
            result = run()
            self.found[key] = {
                "settings": dict(settings),
                "result": result,
                "cpu_seconds": round(time.process_time() - begun, 1),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
            }
            if self.keeps:
                rows = ",\n".join(json.dumps(self.found[k], sort_keys=True) for k in sorted(self.found))
                head = json.dumps({"command": self.command})[:-1]
                write_whole(self.path, f'{head}, "results": [\n{rows}\n]}}\n')
        return dict(self.found[key]["result"])

    def by(self, *names: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        """What was found, by the values of these settings; they must tell all results apart.

        Raises:
            ValueError: a result without such a setting, or two results under the same values.
        """
        rows = list(self.found.values())
        found = {tuple(row["settings"].get(name) for name in names): row["result"] for row in rows}
        if len(found) < len(rows) or not all(set(names) <= set(row["settings"]) for row in rows):
            raise ValueError(
                f"Records.by: got {names} for {len(rows)} results of {self.path}; needs settings that every "
                f"result has and that tell all apart; name more of them, or others"
            )
        return found

    @property
    def cpu_seconds(self) -> float:
        """What all results here took when they were made."""
        return sum(row["cpu_seconds"] for row in self.found.values())


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
