"""Every variant on text, in several seeds.

Rows of 128 tokens of the offline corpus, its BPE with 512 tokens. Variants share seeds: the same rows in the
same order, and the same first weights up to the first tensor that one of them lacks. Held-out losses are of
the same rows for all, without the terms of balance and of multi-token prediction.
"""

import math
from contextlib import nullcontext
from typing import Any

from workbench.model import Sampling
from workbench.training.corpus import Corpus
from workbench.training.loader import Batch, Loader
from workbench.training.loop import Recipe, mean_loss, train
from workbench.training.outliers import OutlierMeter
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.studies.meters import (
    FLAT,
    IDLE,
    attended,
    blocks,
    drafting,
    expert_loads,
    gate_slopes,
    logit_bound,
)
from workbench.training.studies.variants import (
    BIAS_STEP,
    ROW_TOKENS,
    VARIANTS,
    base_config,
    build,
    optimizers,
    row_flop,
    steps_of,
)

VOCABULARY = 512
ROWS, STEPS, BLOCK = 8, 100, 5
CURVE_ROWS, END_ROWS, MEASURES = 32, 192, 10


def run_text(name: str, seed: int, corpus: Corpus, steps: int = STEPS) -> dict[str, Any]:
    """Train one variant; its curves, its FLOPs and what its meters say at the end.

    `flop` counts forward and backward pass of all steps, the latter as two of the former. Curves: `loss` of
    training in blocks of five steps, `held_out` at a tenth of the run each, with the tokens read by then.
    """
    variant = VARIANTS[name]
    model = build(variant, corpus.tokenizer.vocab_size, seed)
    loader = Loader(corpus.train, ROW_TOKENS, seed)
    held_out = Loader(corpus.held_out, ROW_TOKENS, 0).take(END_ROWS)
    sample = Batch(*(x[:ROWS] for x in held_out))
    steps = steps_of(variant, model.config, base_config(model.v4.vocab_size), steps)
    recipe = Recipe(
        LearningRate(variant.rate, variant.rate / 10, steps // 16, steps // 3, steps),
        BatchRamp(ROWS, ROWS, 0),
        micro_rows=ROWS,
        **{"bias_step": BIAS_STEP, **variant.recipe},
    )
    curve = [Batch(*(x[:CURVE_ROWS] for x in held_out))]
    losses, loads, logits, bounds = [], [], [], []
    points: list[dict[str, float]] = []
    with OutlierMeter(model) if variant.watches_logits else nullcontext() as meter:
        for row in train(model, loader, recipe, optimizers=optimizers(variant, model)):
            losses.append(row["loss"])
            loads.append(row["largest_load"])
            if meter is not None and row["step"] % BLOCK == 0:
                largest = max(layer["attention_logit"] for layer in meter.rows())
                logits.append(round(largest, 2) if math.isfinite(largest) else None)
                bounds.append(round(logit_bound(model), 2))
            if row["step"] % (steps // MEASURES) == 0:
                points.append({"tokens": row["tokens"], "loss": round(mean_loss(model, curve), 4)})
        if meter is not None:
            meter.rows()
    model.eval()
    slopes, mass = gate_slopes(model, sample), attended(model, sample)
    found: dict[str, Any] = {
        "steps": steps,
        "tokens": row["tokens"],
        "flop": 3 * row_flop(model.config) * ROWS * steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": blocks(losses, BLOCK),
        "largest_load": blocks(loads, BLOCK),
        "held_out": points,
        "held_out_loss": round(mean_loss(model, [held_out]), 5),
        "expert_loads": expert_loads(model, sample),
        "flat_gates": float((slopes < FLAT).double().mean()),
        "median_slope": round(float(slopes.median()), 4),
        "least_head_mass": [round(float(layer.mean(dim=1).min()), 4) for layer in mass],
        "idle_share": [round(float((layer < IDLE).double().mean()), 4) for layer in mass],
    }
    if variant.watches_logits:
        finite = [bound if math.isfinite(bound) else None for bound in bounds]
        found |= {"largest_logit": logits, "logit_bound": finite}
    if len(model.mtp):
        prompts = held_out.input_ids[:16, :32]
        ways = {"greedy": Sampling(), "sampled": Sampling(temperature=1.0)}
        found["drafts"] = {way: drafting(model, prompts, 64, sampling) for way, sampling in ways.items()}
    return found
