"""Tokenizer, backbone and eye trained from scratch and measured whole, in some seeds: a recorded study.

    python -m workbench.media.study --seeds 0 1 2 --folder build/media

Each seed takes 20 to 27 minutes of one core; processes with a seed each may share a record. A run that was
broken off goes on from its last checkpoint. The judge whose numbers are recorded judged nothing before:
settings were tried out with another, the eye's on training digits set aside.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from workbench.files import write_whole
from workbench.media.data import Digits, load_split
from workbench.media.evaluate import (
    floors,
    measure_animation,
    measure_eye,
    measure_interleaved,
    measure_losses,
    measure_pictures,
    measure_reading,
    measure_text,
    measure_tokenizer,
    measure_videos,
    video_wishes,
)
from workbench.media.generate import CAREFUL, WARM
from workbench.media.judge import Judge, train_judge
from workbench.media.studio import MediaRecipe, Studio, train_backbone, train_eye, train_tokenizer
from workbench.media.tasks import Album
from workbench.model.sampling import Sampling

RECORD = Path(__file__).parents[1] / "data" / "studies" / "media.json"
GUIDANCES = (1.0, 1.75, 2.5, 4.0)
CHOSEN = 1.75  # of GUIDANCES, taken with another judge
REPORTING_JUDGE = 9


def read_study(path: Path = RECORD) -> dict[str, Any]:
    """The recorded study: command, versions, recipe, floors, and a run for each seed."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_studio(path: Path = RECORD) -> Studio:
    """What was trained in the record's seed 0, in half precision as it was measured."""
    return Studio.load(path.with_suffix(""))


@dataclass(frozen=True)
class Trained:
    """What a seed gives: a studio, and a twin that read text alone; seconds of one core by part; the share
    of sentences finished rightly after each round of the last part."""

    studio: Studio
    twin: Studio
    seconds: dict[str, float]
    text_by_round: list[float]


def measures(
    trained: Trained, digits: Digits, judge: Judge, seed: int, n_each: int = 25
) -> dict[str, Callable[[], Any]]:
    """How to get every number of a seed, by part; pictures and videos for each guidance, and unfiltered."""
    studio = trained.studio
    album, wishes = Album(digits.test, studio.tokenizer), video_wishes()

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def draw(guidance: float, sampling: Sampling) -> Any:
        g = generator()
        return measure_pictures(studio, digits, judge, g, guidance=guidance, n_each=n_each, sampling=sampling)

    def film(guidance: float, sampling: Sampling) -> Any:
        g = generator()
        return measure_videos(studio, judge, g, guidance=guidance, wishes=wishes, sampling=sampling)

    ways = {str(guidance): (guidance, CAREFUL) for guidance in GUIDANCES} | {"unfiltered": (CHOSEN, WARM)}
    return {
        "tokenizer": lambda: measure_tokenizer(studio, digits, judge),
        **{f"pictures {name}": partial(draw, *way) for name, way in ways.items()},
        **{f"videos {name}": partial(film, *way) for name, way in ways.items()},
        "reading": lambda: measure_reading(studio, album, len(album)),
        "reading_by_eye": lambda: measure_eye(studio, album),
        "interleaved": lambda: measure_interleaved(
            studio, album, digits, judge, generator(), guidance=CHOSEN
        ),
        "animation": lambda: measure_animation(studio, album, digits.test, judge, 160),
        "text": lambda: measure_text(studio),
        "text_of_twin": lambda: measure_text(trained.twin),
        "losses": lambda: measure_losses(studio, album, seed),
    }


def measure(how: Mapping[str, Callable[[], Any]], path: Path) -> dict[str, Any]:
    """Those numbers, kept in a file over interruptions; "pictures 2.0" comes as ["pictures"]["2.0"]."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for part in how:
        if part not in kept:
            kept[part] = how[part]()
            write_whole(path, json.dumps(kept))
    found: dict[str, Any] = {}
    for part in how:
        group, _, name = part.partition(" ")
        if name:
            found.setdefault(group, {})[name] = kept[part]
        else:
            found[group] = kept[part]
    return found


def train_seed(seed: int, folder: Path, recipe: MediaRecipe, digits: Digits) -> Trained:
    """All parts of a seed, one after the other; those whose weights the folder holds are read from there."""
    folder.mkdir(parents=True, exist_ok=True)
    spent, studio = _Spent(folder), Studio.fresh(seed, recipe.code_weight)
    spent.train("tokenizer", studio.tokenizer, train_tokenizer(studio, digits.train, recipe, seed))
    steps = train_backbone(studio, digits.train, recipe, seed, folder / "backbone-checkpoints")
    spent.train("backbone", studio.model, steps)
    text = list[float]()
    while len(text) < recipe.polish_rounds and (not text or text[-1] < recipe.text_goal):
        name = f"model-{len(text) + 1}" if text else "model"
        checkpoints = folder / f"{name}-checkpoints"
        documents_seed = seed + 100 * len(text)
        steps = train_backbone(studio, digits.train, recipe.last_part, documents_seed, checkpoints)
        spent.train(name, studio.model, steps)
        text.append(measure_text(studio)["text_right"])
    spent.train("eye", studio.eye, train_eye(studio, digits.train, recipe, seed))
    twin = replace(Studio.fresh(seed, recipe.code_weight), tokenizer=studio.tokenizer)
    spent.train("twin", twin.model, train_backbone(twin, digits.train, recipe.text_alone, seed))
    return Trained(studio, twin, spent.seconds, text)


class _Spent:
    """Trains parts, keeps their weights, and the processor seconds of each over interruptions."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "spent.json"
        self.seconds: dict[str, float] = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def train(self, part: str, module: nn.Module, rows: Iterable[dict[str, Any]]) -> None:
        weights, key = self.folder / f"{part}.safetensors", f"{part}_s"
        if weights.is_file():
            load_model(module, str(weights))
            return
        begun, before = time.process_time(), self.seconds.get(key, 0.0)
        for row in rows:
            self.seconds[key] = round(before + time.process_time() - begun, 1)
            if row["step"] % 50 == 0:
                write_whole(self.path, json.dumps(self.seconds))
                print(f"{part} step {row['step']}: loss {row['loss']:.3f}, {self.seconds[key]:.0f} s")
        save_model(module, str(weights))
        write_whole(self.path, json.dumps(self.seconds))


def run_study(
    folder: Path, seeds: Sequence[int], path: Path = RECORD, recipe: MediaRecipe | None = None
) -> None:
    """Train and measure those seeds that the record lacks; it is written after each.

    Raises:
        ValueError: the record holds runs of another recipe.
    """
    recipe, digits = recipe or MediaRecipe(), load_split()
    judge = train_judge(digits.train, REPORTING_JUDGE)
    study: dict[str, Any] = {
        "about": "A tokenizer and a V4 of 1.3M parameters for pictures, videos and text, trained from "
        "scratch on one core and measured on held-out digits with an independent judge.",
        "command": "python -m workbench.media.study --seeds 0 1 2",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "floors": floors(),
        "runs": [],
    }
    for seed in seeds:
        if seed in {run["seed"] for run in _kept_runs(path, study)}:
            continue
        found = train_seed(seed, folder / f"seed{seed}", recipe, digits)
        if seed == 0:
            # Measured as it is kept: rounded to half precision.
            found.studio.save(path.with_suffix(""), torch.float16)
            found = replace(found, studio=Studio.load(path.with_suffix("")))
        numbers = measure(measures(found, digits, judge, seed), folder / f"seed{seed}" / "measured.json")
        # Read again: another process may have added its seed meanwhile.
        run = {"seed": seed, "seconds": found.seconds, "text_by_round": found.text_by_round, **numbers}
        runs = [*_kept_runs(path, study), run]
        study["runs"] = sorted(runs, key=lambda run: run["seed"])
        write_whole(path, json.dumps(study, indent=1) + "\n")


def _kept_runs(path: Path, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    kept = read_study(path)
    if kept["recipe"] != study["recipe"]:
        raise ValueError(
            f"run_study: {path} holds runs of {kept['recipe']}; this run has {study['recipe']}; give "
            f"another --output, or remove that file"
        )
    return list(kept["runs"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("build/media"), help="checkpoints and weights")
    parser.add_argument("--output", type=Path, default=RECORD)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run_study(given.folder, given.seeds, given.output)
