"""A run small enough for tests; started as a program, it prints one JSON line a step."""

import json
import random
import sys

import torch

import workbench as wb
from workbench.model import Transformer
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.schedules import BatchRamp, LearningRate


def documents() -> list[list[int]]:
    """Counting up by a step: easy to predict, and of many lengths."""
    draw = random.Random(0)
    return [
        [(begin + i * by) % 64 for i in range(draw.randrange(4, 40))]
        for begin, by in ((draw.randrange(64), draw.choice((1, 2, 3))) for _ in range(60))
    ]


def make(steps: int, *, seed: int = 1, mtp: int = 1, **options: object) -> tuple[Transformer, Loader, Recipe]:
    config = wb.load_config("tiny").replace(
        num_nextn_predict_layers=mtp, compress_ratios=[0, 8, 4, 8, 4, 0][: 5 + mtp]
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    rate = LearningRate(
        peak=0.02, final=0.002, warmup_steps=min(2, steps // 2), decay_steps=steps // 3, total_steps=steps
    )
    recipe = Recipe(rate, BatchRamp(4, 4, 0), **{"micro_rows": 2, **options})  # type: ignore[arg-type]
    return model, Loader(documents(), 24, seed=5), recipe


if __name__ == "__main__":
    for row in train(*make(int(sys.argv[2])), folder=sys.argv[1], checkpoint_every=2):
        print(json.dumps(row), flush=True)
