"""The stages of pre-training: dense attention, indexer warm-up, sparse attention; rows that grow.

    dense      CSA layers read every entry; the indexers do not learn
    warm-up    as before, and only the indexers learn, from where attention looks
    sparse     the indexers select; they learn beside the rest, from the entries they selected

CSA is compressed sparse attention. Each stage is a run of `loop.train` over rows of its length, with the
weights and optimiser states of the stage before.

Report: section 4.2.2: lengths 4K, 16K, 64K, 1M; dense for the first 1T tokens; sparse from 64K on, after a
short warm-up of the indexers. It prints neither the steps of a stage nor the indexers' objective; that is
V3.2's (see indexer_loss.py), and so is what learns in which stage.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from workbench.model import Transformer
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.parameter_groups import make_optimizers
from workbench.training.schedules import BatchRamp, LearningRate


@dataclass(frozen=True)
class Stage:
    """One stretch of training: its name, the length of its rows, and how it trains."""

    name: str
    row_tokens: int
    recipe: Recipe


def plan(
    recipe: Recipe,
    lengths: Sequence[int],
    steps: Sequence[int],
    *,
    sparse_from: int,
    warmup_steps: int,
    warmup_rate: float = 1e-3,
) -> list[Stage]:
    """The report's curriculum in small: rows of lengths[i] tokens for steps[i] steps, then the next.

    The first stage has the recipe's learning-rate warm-up and the last its decay; between them the rate
    stays at its peak. Longer rows come in smaller batches, so that a step has about as many tokens.

    Args:
        recipe: of the first length; its total_steps do not count.
        sparse_from: the number of the first length trained sparsely; len(lengths) for none, 0 for all.
        warmup_steps: of the indexers, before the first sparse stage, at its length; 0 leaves it out.
        warmup_rate: V3.2's, constant.

    Raises:
        ValueError: lengths that do not grow, another number of steps, no such length, or warm-up without a
            sparse stage; or as `LearningRate`, if a stage is too short for the warm-up or decay.
    """
    if (
        not lengths
        or list(lengths) != sorted(set(lengths))
        or len(steps) != len(lengths)
        or not 0 <= sparse_from <= len(lengths)
        or warmup_steps < 0
        or (warmup_steps and sparse_from == len(lengths))
    ):
        raise ValueError(
            f"plan: got lengths={list(lengths)}, steps={list(steps)}, sparse_from={sparse_from}, "
            f"warmup_steps={warmup_steps}; needs lengths that grow, steps for each, sparse_from in [0, "
            f"{len(lengths)}], and a sparse stage after a warm-up; correct the one that is off"
        )
    stages = []
    for i, (length, count) in enumerate(zip(lengths, steps, strict=True)):
        is_first, is_last, is_sparse = i == 0, i == len(lengths) - 1, i >= sparse_from
        largest = max(recipe.batch.largest * lengths[0] // length, 1)
        of_length = replace(recipe, batch=recipe.batch if is_first else BatchRamp(largest, largest, 0))
        if i == sparse_from and warmup_steps:
            constant = LearningRate(warmup_rate, warmup_rate, 0, 0, warmup_steps)
            warmup = replace(
                of_length,
                rate=constant,
                batch=BatchRamp(largest, largest, 0),
                attention="dense",
                indexer="alone",
            )
            stages.append(Stage(f"warm-up {length}", length, warmup))
        rate = replace(
            recipe.rate,
            warmup_steps=recipe.rate.warmup_steps if is_first else 0,
            decay_steps=recipe.rate.decay_steps if is_last else 0,
            total_steps=count,
        )
        if is_sparse:
            own = replace(of_length, rate=rate, attention="sparse", indexer="beside")
        else:
            own = replace(of_length, rate=rate, attention="dense", indexer="off")
        stages.append(Stage(f"{own.attention} {length}", length, own))
    return stages


def train_stages(
    model: Transformer,
    documents: Sequence[Sequence[int]],
    stages: Sequence[Stage],
    *,
    seed: int,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 100,
) -> Generator[dict[str, Any], None, None]:
    """Train in place through all stages; the rows of `train`, with `stage` and `run_step`, counted through.

    Every stage packs the documents anew and shuffles them by a seed of its own. Stopped or killed, it goes
    on from its last checkpoint in `folder`, where each stage has a folder; the stages before must be
    whole.

    Raises:
        ValueError: no stages, names that repeat, rows longer than the model reads, or as `train`.
    """
    longest = model.v4.max_position_embeddings
    names = [stage.name for stage in stages]
    too_long = [stage.name for stage in stages if stage.row_tokens > longest]
    if not stages or len(set(names)) < len(names) or too_long:
        raise ValueError(
            f"train_stages: got stages {names}, {too_long or 'none'} of them longer than the {longest} "
            f"tokens that the model reads; needs one or more, each with its own name, none longer; change "
            f"the stages or max_position_embeddings"
        )
    optimizers = make_optimizers(model, stages[0].recipe.rate.peak) if optimizers is None else optimizers
    before = 0
    for number, stage in enumerate(stages):
        loader = Loader(documents, stage.row_tokens, seed * len(stages) + number)
        own = None if folder is None else Path(folder) / f"{number}-{stage.name.replace(' ', '-')}"
        run = train(
            model,
            loader,
            stage.recipe,
            optimizers=optimizers,
            folder=own,
            checkpoint_every=checkpoint_every,
        )
        for row in run:
            yield {**row, "stage": stage.name, "run_step": before + row["step"]}
        before += stage.recipe.rate.total_steps
