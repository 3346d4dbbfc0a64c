"""FP8 training against BF16 from scratch, in more seeds than a notebook has time for: a recorded study.

    python -m workbench.training.fp8_study --seeds 24

Every seed draws one network and one order of the text, and trains them once in each arithmetic. A bit in an
early step makes another network of a late one, so a single pair says nothing: two harmless arithmetics end
some tenths of a percent apart. Only the mean over many seeds does.

The runs are written down seed by seed, with what made them; a study that was broken off goes on where it
stopped. Claim: V3 report (arXiv 2412.19437), section 3.3.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from workbench.files import write_whole
from workbench.quant.recipes import Recipe
from workbench.training.quantised import FP32, fresh, held_out, loss_under, study_text, train_under

RECORD = Path(__file__).parents[1] / "data" / "studies" / "fp8_training.json"
ARITHMETICS: tuple[str | Recipe, ...] = ("bf16", "fp8_v3", "fp8_tensor", FP32)
FIRST_SEED = 100  # below it are those that the design was tried out on
RATE = 4e-3


def read_study(path: Path = RECORD) -> dict[str, Any]:
    """The recorded study: command, versions, settings, runs of {"seed", "arithmetic", "loss", "seconds"}."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def gaps(study: dict[str, Any], arithmetic: str, than: str = "bf16") -> list[float]:
    """Percent of the BF16 loss that an arithmetic ends above another, for every seed."""
    losses = {(run["arithmetic"], run["seed"]): run["loss"] for run in study["runs"]}
    seeds = sorted({seed for _, seed in losses})
    return [100 * (losses[arithmetic, s] - losses[than, s]) / losses["bf16", s] for s in seeds]


def run_study(path: Path, n_seeds: int, steps: int, n_batches: int) -> dict[str, Any]:
    """Train what the file lacks, and write it after every seed.

    Raises:
        ValueError: the file holds runs of other settings or versions.
    """
    corpus = study_text()
    batches = held_out(corpus, n_batches)
    study: dict[str, Any] = {
        "about": "Held-out loss (nats a token) of a small V4 trained from scratch, by arithmetic and seed.",
        "command": f"python -m workbench.training.fp8_study --seeds {n_seeds} --steps {steps} "
        f"--batches {n_batches}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "settings": {"steps": steps, "rate": RATE, "held_out_batches": n_batches, "threads": 1},
        "runs": [],
    }
    if path.exists():
        kept = read_study(path)
        if (kept["settings"], kept["versions"]) != (study["settings"], study["versions"]):
            raise ValueError(
                f"run_study: {path} holds runs of {kept['settings']} under {kept['versions']}; this run has "
                f"{study['settings']} under {study['versions']}; give another --output, or remove that file"
            )
        study["runs"] = kept["runs"]
    done = {run["seed"] for run in study["runs"]}
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        if seed in done:
            continue
        for recipe in ARITHMETICS:
            begun = time.process_time()
            model = fresh(seed)
            train_under(model, recipe, corpus.train, steps, rate=RATE, seed=seed)
            loss = loss_under(model, recipe, batches)
            arithmetic = recipe if isinstance(recipe, str) else recipe.name
            seconds = round(time.process_time() - begun, 1)
            study["runs"].append(dict(seed=seed, arithmetic=arithmetic, loss=loss, seconds=seconds))
        write_whole(path, json.dumps(study, indent=1) + "\n")
        print(
            f"seed {seed}: {[round(run['loss'], 4) for run in study['runs'][-len(ARITHMETICS) :]]}",
            flush=True,
        )
    return study


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.training.fp8_study", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batches", type=int, default=12, help="held-out batches of 4 rows of 256 tokens")
    parser.add_argument("--output", type=Path, default=RECORD)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums in another order are another run
    run_study(chosen.output, chosen.seeds, chosen.steps, chosen.batches)


if __name__ == "__main__":
    main()
