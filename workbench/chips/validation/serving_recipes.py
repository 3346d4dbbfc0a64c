"""Recipes of the runs in the serving table: what its columns leave out of runs with a pool that decodes.

The benchmark lists every run in a file of its own: how many instances decode, in which layout, and with how
many drafts. A point is one of these runs if system, engine, precision, lengths and users agree, and so do the
sizes that it states. Where runs with drafts and without agree, and the table holds two speeds, the faster
drafts; runs that differ in nothing but their instances are all kept, and their middle is predicted. Points
that state their instances are left to `serving_layout`.

Source: data/chips/serving_recipes.csv, from SemiAnalysisAI/InferenceX, .github/configs/nvidia-master.yaml
(Apache-2.0), as of March 2026, and for points of 2025 as of November 2025 (copy of ishandhanani); drafts of
SGLang's runs from ishandhanani/srt-slurm, recipes/b200-fp8.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from workbench.chips.catalog import FOLDER
from workbench.chips.validation.rows import Unpredictable
from workbench.chips.validation.serving_layout import MOST_TP, SIZES, ServingLayout
from workbench.chips.validation.sweeps import SAME_RUN
from workbench.chips.validation.text import Drafts

FILE = FOLDER / "serving_recipes.csv"
_RUN = ("backend", "precision", "isl", "osl", "concurrency")


@dataclass(frozen=True)
class Recipe:
    """A run: `workers` instances of `ranks` devices that decode, and drafts a step.

    layout: "tp" shares heads and experts' products, "tep" heads, with experts whole; "dp" shares out
    requests, with the experts' products shared; "dep" requests, with experts whole.
    """

    drafts: int
    workers: int
    layout: str
    ranks: int

    def decode(self) -> ServingLayout:
        n = self.ranks
        tp, dp = (1, n) if self.layout.startswith("d") else (n, 1)
        moe_tp, ep = (1, n) if "e" in self.layout else (n, 1)
        return ServingLayout(tp, dp, moe_tp, ep, float(self.workers))

    def speculation(self) -> Drafts:
        return Drafts(self.drafts, None, "mtp") if self.drafts else Drafts()


def recipes_of(row: Mapping[str, str]) -> list[Recipe]:
    """The runs that a point may be; none where no run is listed for its system and users."""
    if row.get("decode_num_workers"):
        return []
    found = _recipes().get(_run(row), ())
    ranks = _ranks(row)
    if row.get("mode") == "agg":
        # All devices of a run with two pools, as one group: no engine has so large a one.
        return list(dict.fromkeys(r for r, devices in found if ranks > MOST_TP and devices == ranks))
    close = [r for r, _ in found if ranks in (1, r.ranks)]
    # Both pools as one group.
    close = close or [r for r, devices in found if ranks == devices > MOST_TP]
    return list(dict.fromkeys(close))


def run_key(row: Mapping[str, str]) -> tuple[str, ...]:
    """What the points of a run have in common, with drafts or without."""
    return (*_run(row), row.get("mode", ""), str(_ranks(row)))


def recipes_at(row: Mapping[str, str], ms: float | None, times: Sequence[float]) -> list[Recipe]:
    """The runs that a point may be, all with as many drafts; none where no run is listed.

    ms: its time a token; times: those of all points with the same `run_key`.

    Raises:
        Unpredictable: runs with and without drafts agree with the point.
    """
    found = recipes_of(row)
    if len({r.drafts for r in found}) < 2:
        return found
    plain, drafting = ([r for r in found if bool(r.drafts) == drafts] for drafts in (False, True))
    is_faster = max(r.workers for r in plain) <= min(r.workers for r in drafting) if plain else False
    if is_faster and len({r.drafts for r in drafting}) == 1 and ms and max(times) > SAME_RUN * min(times):
        return drafting if ms * ms < min(times) * max(times) else plain
    words = ", ".join(f"{r.workers} × {r.layout}{r.ranks} with {r.drafts} drafts" for r in found)
    raise Unpredictable(f"several published runs agree with the point: {words}")


def _ranks(row: Mapping[str, str]) -> int:
    """Devices of an instance as stated; where the sizes multiply to a square, it was multiplied once more."""
    if row.get("mode") == "agg":
        return _size(row, "tp_size")
    tp, dp, moe_tp, ep = (_size(row, f"decode_{name}") for name in SIZES)
    return ep if moe_tp == ep > 1 and tp * dp == ep * ep else tp * dp


def _run(row: Mapping[str, str]) -> tuple[str, ...]:
    system = row.get("system", "").lower().split("_")[0]
    # A point without a date is taken for one of the later runs.
    year = row.get("year") or ("2025" if "" < row.get("measured", "") < "2026" else "2026")
    return (year, system, *(_plain_number(row.get(name, "")) for name in _RUN))


def _plain_number(cell: str) -> str:
    try:
        return f"{float(cell):g}"
    except ValueError:
        return cell.lower()


def _size(row: Mapping[str, str], name: str) -> int:
    """A size as stated, 1 where it is not; 0, which no run has, where it is no number."""
    try:
        return int(float(row.get(name) or 1))
    except (ValueError, OverflowError):
        return 0


@lru_cache(maxsize=1)
def _recipes() -> dict[tuple[str, ...], list[tuple[Recipe, int]]]:
    """Runs, each with the devices of both pools."""
    found: dict[tuple[str, ...], list[tuple[Recipe, int]]] = defaultdict(list)
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            workers, ranks = int(row["decode_workers"]), int(row["decode_ranks"])
            recipe = Recipe(int(row["drafts"]), workers, row["decode_layout"], ranks)
            found[_run(row)].append((recipe, workers * ranks + int(row["prefill_devices"])))
    return dict(found)
