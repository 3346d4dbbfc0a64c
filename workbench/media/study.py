"""Tokenizer and backbone trained from scratch and measured whole, in some seeds: a recorded study.

    python -m workbench.media.study --seeds 1 --folder build/media

Each seed takes about 18 minutes of one core. A run that was broken off goes on from its last checkpoint. The
judge whose numbers are recorded judged nothing before: settings were tried out with another.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from workbench.files import write_whole
from workbench.media.data import Digits, load_split
from workbench.media.evaluate import (
    floors,
    measure_animation,
    measure_pictures,
    measure_reading,
    measure_text,
    measure_tokenizer,
    measure_videos,
    video_wishes,
)
from workbench.media.judge import Judge, train_judge
from workbench.media.studio import MediaRecipe, Studio, loader, train_backbone, train_tokenizer
from workbench.media.tasks import Album

RECORD = Path(__file__).parents[1] / "data" / "studies" / "media.json"
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
CHOSEN = 2.0  # of GUIDANCES, taken before any was measured here
REPORTING_JUDGE = 7


def read_study(path: Path = RECORD) -> dict[str, Any]:
    """The recorded study: command, versions, recipe, floors, and a run for each seed."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_studio(path: Path = RECORD) -> Studio:
    """The trained tokenizer and model of the record's seed 0, in half precision as they were measured."""
    return Studio.load(path.with_suffix(""))


def measure(studio: Studio, digits: Digits, judge: Judge, seed: int, n_each: int = 25) -> dict[str, Any]:
    """Every number of a trained studio, by part; pictures and videos for each guidance."""
    generator = torch.Generator().manual_seed(seed)
    album = Album(digits.test, studio.tokenizer)
    drawn, filmed = {}, {}
    for guidance in GUIDANCES:
        drawn[str(guidance)] = measure_pictures(
            studio, digits, judge, generator, guidance=guidance, n_each=n_each
        )
        filmed[str(guidance)] = measure_videos(
            studio, judge, generator, guidance=guidance, wishes=video_wishes()
        )
    return {
        "tokenizer": measure_tokenizer(studio, digits, judge),
        "pictures": drawn,
        "videos": filmed,
        "reading": measure_reading(studio, album, len(album)),
        "animation": measure_animation(studio, album, digits.test, judge, 160),
        "text": measure_text(studio),
    }


def trained(seed: int, folder: Path, recipe: MediaRecipe, digits: Digits) -> tuple[Studio, dict[str, float]]:
    """A studio of this seed, and the seconds of one core that its two parts took; from files where there."""
    studio, spent = Studio.fresh(seed, recipe.code_weight), _Spent(folder / "spent.json")
    saved = folder / "tokenizer.safetensors"
    if saved.is_file():
        load_model(studio.tokenizer, str(saved))
    else:
        spent.count("tokenizer_s", train_tokenizer(studio, digits.train, recipe, seed))
        save_model(studio.tokenizer, str(saved))
    spent.count("backbone_s", train_backbone(studio, digits.train, recipe, seed, folder / "checkpoints"))
    studio.save(folder)
    return studio, spent.seconds


class _Spent:
    """Processor seconds by part, kept in a file over interruptions."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    def count(self, part: str, rows: Iterable[dict[str, Any]], say: Callable[[str], None] = print) -> None:
        begun, before = time.process_time(), self.seconds.get(part, 0.0)
        for row in rows:
            if row["step"] % 100 == 0:
                self.seconds[part] = round(before + time.process_time() - begun, 1)
                write_whole(self.path, json.dumps(self.seconds))
                say(f"{part} step {row['step']}: loss {row['loss']:.3f}, {self.seconds[part]:.0f} s")


def run_study(folder: Path, n_seeds: int, path: Path = RECORD, recipe: MediaRecipe | None = None) -> None:
    """Train and measure what the record lacks; it is written after each seed.

    Raises:
        ValueError: the record holds runs of another recipe.
    """
    recipe, digits = recipe or MediaRecipe(), load_split()
    judge = train_judge(digits.train, REPORTING_JUDGE)
    study: dict[str, Any] = {
        "about": "A tokenizer and a V4 of 1.3M parameters for pictures, videos and text, trained from "
        "scratch on one core and measured on held-out digits with an independent judge.",
        "command": f"python -m workbench.media.study --seeds {n_seeds}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "floors": floors(),
        "runs": [],
    }
    if path.is_file():
        kept = read_study(path)
        if kept["recipe"] != study["recipe"]:
            raise ValueError(
                f"run_study: {path} holds runs of {kept['recipe']}; this run has {study['recipe']}; give "
                f"another --output, or remove that file"
            )
        study["runs"] = kept["runs"]
    for seed in range(n_seeds):
        if seed in {run["seed"] for run in study["runs"]}:
            continue
        place = folder / f"seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        studio, seconds = trained(seed, place, recipe, digits)
        if seed == 0:
            # Measured as it is kept: rounded to half precision.
            studio.save(path.with_suffix(""), torch.float16)
            studio = Studio.load(path.with_suffix(""))
        begun = time.process_time()
        found = measure(studio, digits, judge, seed)
        seconds = {**seconds, "measuring_s": round(time.process_time() - begun, 1)}
        epoch = len(loader(studio, digits.train, recipe, seed))
        study["runs"].append({"seed": seed, "seconds": seconds, "rows_an_epoch": epoch, **found})
        write_whole(path, json.dumps(study, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/media"), help="checkpoints and weights")
    parser.add_argument("--output", type=Path, default=RECORD)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run_study(given.folder, given.seeds, given.output)
