"""Spikes on purpose, and what helps, in several seeds: a recorded study.

    python -m workbench.training.stability_study

A small V4 learns to continue progressions of numbers, calmly or under one of two stresses, in three ways: as
V4 is; with Anticipatory Routing for the whole run; without the clamp of SwiGLU. Ways share seeds, so that
they are compared run by run: the same weights, the same data.

Report: section 4.2.3.
"""

import argparse
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from workbench.config import CSA, HCA, SWA, ModelConfig, load_config
from workbench.model import Transformer
from workbench.training.anticipatory import AnticipatoryRouting
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.outliers import OutlierMeter
from workbench.training.records import FOLDER, Records
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.spikes import SpikeDetector, SpikeRule
from workbench.training.stressors import faster, repeat_tokens

COMMAND = "python -m workbench.training.stability_study"
RECORD = FOLDER / "stability.json"
SEEDS = (10, 11, 12, 13, 14)
FURTHER = tuple(range(20, 35))  # for the stress under which five seeds leave Anticipatory Routing undecided
STRESSES = ("calm", "rate × 40", "repeated tokens")
WAYS = ("as V4", "anticipatory", "unclamped")
STEPS, RATE, ROWS, LENGTH, NUMBERS = 160, 8e-3, 8, 64, 64
DELAY = 4  # the report does not print its lag
RULE = SpikeRule(window=16, threshold=6.0, least_rise=0.1)
SETTLED = 40  # steps before this one still fall steeply
AROUND = 20  # steps on both sides of a spike that count as around it


def study_config(swiglu_limit: float = 10.0) -> ModelConfig:
    """A V4 of 0.2 million parameters: one layer of each kind of attention, the first with hash routing."""
    return load_config("mini").replace(
        vocab_size=NUMBERS, hidden_size=64, num_hidden_layers=3, num_nextn_predict_layers=0,
        layer_types=(SWA, CSA, HCA), compress_ratios=(0, 4, 16), num_hash_layers=1, sliding_window=16,
        num_attention_heads=4, head_dim=32, qk_rope_head_dim=8, q_lora_rank=32, o_lora_rank=16, o_groups=2,
        index_n_heads=4, index_head_dim=16, index_topk=16, n_routed_experts=8, num_experts_per_tok=2,
        moe_intermediate_size=32, initializer_range=0.06, swiglu_limit=swiglu_limit,
    )  # fmt: skip


def progressions(count: int, seed: int = 0) -> list[list[int]]:
    """Documents b, b + d, b + 2d, … modulo 64, of 12 to 64 numbers; d is 1, 2, 3, 5 or 7."""
    rng, documents = random.Random(seed), []
    for _ in range(count):
        first, step = rng.randrange(NUMBERS), rng.choice((1, 2, 3, 5, 7))
        documents.append([(first + i * step) % NUMBERS for i in range(rng.randrange(12, 65))])
    return documents


def setting(stress: str, way: str, seed: int) -> tuple[Transformer, Loader, Recipe]:
    """A fresh network, its data and its recipe.

    Raises:
        ValueError: an unknown stress or way.
    """
    if stress not in STRESSES or way not in WAYS:
        raise ValueError(
            f"setting: got stress {stress!r} and way {way!r}; needs one of {STRESSES} and one of {WAYS}; "
            f"choose among those"
        )
    config = study_config(1e9 if way == "unclamped" else 10.0)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    share = 0.03 if stress == "repeated tokens" else 0.0
    loader = Loader(repeat_tokens(progressions(400), share, seed), LENGTH, seed)
    recipe = Recipe(
        LearningRate(RATE, RATE, 10, 0, STEPS), BatchRamp(ROWS, ROWS, 0), micro_rows=ROWS, bias_step=1e-2
    )
    return model, loader, faster(recipe, 40.0) if stress == "rate × 40" else recipe


def run(stress: str, way: str, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """One run: of every step the loss, whether it is a spike, and the largest numbers in the network.

    A run whose loss is no number ends there; "ended" is its step.
    """
    model, loader, recipe = setting(stress, way, seed)
    recipe = replace(recipe, rate=replace(recipe.rate, total_steps=steps))
    anticipatory = AnticipatoryRouting(model, DELAY) if way == "anticipatory" else None
    columns: dict[str, list[Any]] = {"loss": [], "is_spike": [], "expert_output": [], "shared_activation": []}
    with OutlierMeter(model) as meter, suppress(FloatingPointError):
        detector = SpikeDetector(RULE)
        for row in train(model, loader, recipe, anticipatory=anticipatory, detector=detector):
            seen = meter.rows()
            columns["loss"].append(row["loss"])
            columns["is_spike"].append(row["is_spike"])
            for name in ("expert_output", "shared_activation"):
                columns[name].append(float(f"{max(layer[name] for layer in seen):.4g}"))
    return {**columns, "ended": len(columns["loss"])}


def study_runs() -> list[tuple[str, str, int]]:
    """Every run of the study: stress, way, seed."""
    everything = [(stress, way, seed) for seed in SEEDS for stress in STRESSES for way in WAYS]
    return everything + [("rate × 40", way, seed) for seed in FURTHER for way in WAYS[:2]]


def rises(losses: Sequence[float], begin: int = SETTLED, window: int = RULE.window) -> float:
    """How far losses lie above the median of those before, averaged over steps; falls count as 0. In nats."""
    found = [
        max(losses[t] - float(np.median(losses[t - window : t])), 0.0) for t in range(begin, len(losses))
    ]
    return float(np.mean(found)) if found else math.nan


def lead(found: Mapping[str, Sequence[Any]], name: str, ahead: int = 1) -> list[float]:
    """For every spike, how far its outliers, `ahead` steps earlier, stand out beside ordinary steps.

    A step's outliers exceed some share of the window before them. Outliers grow as a network learns, so that
    this share is above 1/2 at any step; what counts is the share before the spike minus the mean share before
    the ordinary steps around it. 0 on average if outliers say nothing. Spikes that follow another within the
    window are left out.
    """
    window, is_spike, values = RULE.window, found["is_spike"], np.asarray(found[name])
    spikes = [t for t, is_so in enumerate(is_spike) if is_so]
    lone = [t for last, t in pairwise((-window - 1, *spikes)) if t - last > window and t - ahead >= window]
    shares = {
        t: float(np.mean(before < values[t - ahead]) + np.mean(before == values[t - ahead]) / 2)
        for t in range(window + ahead, len(values))
        for before in [values[t - ahead - window : t - ahead]]
    }
    return [
        shares[t] - float(np.mean([x for u, x in shares.items() if abs(u - t) <= AROUND and not is_spike[u]]))
        for t in lone
    ]


def read_study() -> Mapping[tuple[str, str, int], dict[str, Any]]:
    """The recorded runs by (stress, way, seed); `seconds` is their processor time."""
    rows = Records(RECORD, COMMAND).found.values()
    return {
        (s["stress"], s["way"], s["seed"]): {**row["result"], "seconds": row["cpu_seconds"]}
        for row in rows
        if (s := row["settings"])
    }


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)  # sums in another order are another run
    records = Records(RECORD, COMMAND)
    for stress, way, seed in study_runs():
        key = {"stress": stress, "way": way, "seed": seed}
        found = records.get(key, partial(run, stress, way, seed))
        spikes, last = sum(found["is_spike"]), np.mean(found["loss"][-20:])
        print(f"{seed} {stress:16} {way:13} end {last:.3f}, {spikes} spikes", flush=True)


if __name__ == "__main__":
    main()
