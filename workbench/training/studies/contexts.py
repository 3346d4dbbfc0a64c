"""Needles in ever longer contexts: what a small hybrid finds, and whether its indexer still points there.

The base network learns needles up to 48 tokens back with dense attention; then its indexer warms up, and then
it selects 8 entries. It is asked at up to 16 times that distance, selecting and reading everything: where
only the first falls, selection is at fault.

Report: Figure 9 (eight needles of MRCR against context; the shape alone is compared).
"""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from workbench.config import CSA
from workbench.model import Transformer, observe
from workbench.training.indexer_loss import every_entry
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.parameter_groups import make_optimizers
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.studies.suites import (
    COUNTS,
    DISTANCES,
    NEEDLES,
    RATE,
    ROWS,
    needle_accuracy,
    needle_documents,
    suite_config,
)
from workbench.training.studies.variants import BIAS_STEP, ROW_TOKENS

TOPK = 8
ASKED = (0, 12, 24, 48, 96, 192, 384, 768)
N_DOCUMENTS, N_ASKED, N_OBSERVED = 6000, 96, 24
STEPS = {"dense": 240, "warm-up": 30, "sparse": 60}


def recipes(steps: dict[str, int]) -> dict[str, Recipe]:
    """The three phases: all by attention, the indexer alone, both beside each other."""
    dense = Recipe(
        LearningRate(RATE, RATE, steps["dense"] // 16, 0, steps["dense"]),
        BatchRamp(ROWS, ROWS, 0),
        micro_rows=ROWS,
        bias_step=BIAS_STEP,
        attention="dense",
    )
    constant = LearningRate(RATE, RATE, 0, 0, steps["warm-up"])
    decay = LearningRate(RATE, RATE / 10, 0, steps["sparse"], steps["sparse"])
    return {
        "dense": dense,
        "warm-up": replace(dense, rate=constant, indexer="alone"),
        "sparse": replace(dense, rate=decay, attention="sparse", indexer="beside"),
    }


def needle_selected(model: Transformer, distance: int) -> float:
    """How often the indexer's choice at the question holds an entry that the asked needle's key went into.

    An entry pools its own window of 4 tokens and the one before.
    """
    samples = needle_documents(N_OBSERVED, 1, [distance], COUNTS[-1:], is_held_out=True)
    layer, found = model.config.attention_types.index(CSA), 0
    for sample in samples:
        ask = sample.answers[0] - 1
        seen = observe(model, torch.tensor([sample.ids]), layers=[layer]).layers[layer].attention
        assert seen.selected is not None
        window = sample.ids.index(sample.ids[ask]) // 4
        found += bool({window, window + 1} & set(seen.selected[0, ask].tolist()))
    return found / len(samples)


def run_contexts(seed: int, steps: dict[str, int] = STEPS, asked: tuple[int, ...] = ASKED) -> dict[str, Any]:
    """Train through the three phases and ask at every distance, selecting and reading every entry."""
    model = Transformer(
        suite_config().replace(index_topk=TOPK), generator=torch.Generator().manual_seed(seed)
    )
    optimizers = make_optimizers(model, RATE)
    documents = needle_documents(N_DOCUMENTS, seed, DISTANCES, COUNTS)
    loader = Loader([d.ids for d in documents], ROW_TOKENS, seed, [d.labels for d in documents])
    losses = [
        round(row["loss"], 4)
        for recipe in recipes(steps).values()
        for row in train(model, loader, recipe, optimizers=optimizers)
    ]
    model.eval()
    found: dict[str, Any] = {"loss": losses}
    for way, attention in (("selecting", nullcontext()), ("reading all", every_entry(model))):
        with attention:
            found[way] = needle_accuracy(model, asked, N_ASKED)
    longest = NEEDLES.haystack_tokens + 3  # of what stands around the distance
    readable = [distance for distance in asked if distance + longest <= 1024]
    found["needle_selected"] = {str(distance): needle_selected(model, distance) for distance in readable}
    return found
