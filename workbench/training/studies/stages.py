"""Rows that grow, and attention that turns sparse: the stages of the report, and ways without one.

The base network on text, its indexers choosing 8 of up to 64 entries, goes through the stages of
`curriculum.plan`. After each stage: held-out loss on short and on long rows, attending as in the stage, and
how much of the attention on entries the indexers' choice would hold.

Report: section 4.2.2; how long each stage takes is not printed. CSA is compressed sparse attention.
"""

from contextlib import nullcontext
from typing import Any

import torch

from workbench.config import ModelConfig
from workbench.model import Transformer
from workbench.training.corpus import Corpus
from workbench.training.curriculum import Stage, plan, train_stages
from workbench.training.indexer_loss import attention_inputs, every_entry, index_recall
from workbench.training.loader import Batch, Loader
from workbench.training.loop import Recipe, mean_loss
from workbench.training.parameter_groups import make_optimizers
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.studies.variants import BIAS_STEP, RATE, base_config

TOPK = 8
LENGTHS, STEPS = (64, 128, 256), (60, 30, 30)
ROWS = 16  # of the first length: 1024 tokens a step throughout
WARMUP = 20
HELD_OUT_TOKENS = 1 << 13
WAYS = {
    "curriculum": (1, True),
    "sparse from the start": (0, False),
    "short rows only": (1, False),
    "dense throughout": (3, False),
    "no warm-up": (1, False),
}
"""From which length on a way is sparse, and whether its indexers warm up before."""


def stages_config(vocab_size: int) -> ModelConfig:
    """The base, selecting."""
    return base_config(vocab_size).replace(index_topk=TOPK)


def stages_of(way: str, steps: tuple[int, ...] = STEPS, warmup: int = WARMUP) -> list[Stage]:
    """The stages of a way, each length with its steps; short rows only: as many steps, all of one length."""
    rate = LearningRate(RATE, RATE / 10, sum(steps) // 16, steps[-1], sum(steps))
    recipe = Recipe(rate, BatchRamp(ROWS, ROWS, 0), micro_rows=ROWS, bias_step=BIAS_STEP)
    if way == "short rows only":
        return plan(recipe, LENGTHS[:1], [sum(steps)], sparse_from=1, warmup_steps=0)
    sparse_from, has_warmup = WAYS[way]
    return plan(
        recipe, LENGTHS, steps, sparse_from=sparse_from, warmup_steps=warmup if has_warmup else 0,
        warmup_rate=RATE,
    )  # fmt: skip


def run_stages(
    way: str, seed: int, corpus: Corpus, steps: tuple[int, ...] = STEPS, warmup: int = WARMUP
) -> dict[str, Any]:
    """Train one way; `after` has a row for each stage: losses on short and long rows, the indexers' recall.

    The recall is that of the long rows, with the attention of the network at that point.
    """
    config = stages_config(corpus.tokenizer.vocab_size)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    optimizers = make_optimizers(model, RATE)
    held_out = {length: _held_out(corpus, length) for length in LENGTHS}
    after, step = [{"step": 0, **_measure(model, held_out, "start", True)}], 0
    losses: list[float] = []
    for stage in stages_of(way, steps, warmup):
        # Each stage by itself, to measure between two of them; its rows are those of every way at this seed.
        own_seed = 1000 * seed + stage.row_tokens + stage.name.startswith("warm-up")
        rows = train_stages(model, corpus.train, [stage], seed=own_seed, optimizers=optimizers)
        losses += [round(row["loss"], 4) for row in rows]
        step += stage.recipe.rate.total_steps
        after.append(
            {"step": step, **_measure(model, held_out, stage.name, stage.recipe.attention == "dense")}
        )
    return {"loss": losses, "after": after}


def _held_out(corpus: Corpus, length: int) -> Batch:
    return Loader(corpus.held_out, length, 0).take(HELD_OUT_TOKENS // length)


def _measure(model: Transformer, held_out: dict[int, Batch], stage: str, is_dense: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"stage": stage}
    with every_entry(model) if is_dense else nullcontext():
        for length in (LENGTHS[0], LENGTHS[-1]):
            found[f"loss_{length}"] = round(mean_loss(model, [held_out[length]]), 4)
    few = Batch(*(x[:4] for x in held_out[LENGTHS[-1]]))
    with torch.no_grad(), every_entry(model), attention_inputs(model) as seen:
        model.streams(few.input_ids, sample_ids=few.sample_ids)
        found["recall"] = round(index_recall(seen, TOPK), 4)
    return found
