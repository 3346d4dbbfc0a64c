"""How much residual streams enlarge in trained networks, free and on the manifold: a recorded study.

    python -m workbench.training.gain_study

The task of `stability_study` on a network of eight layers, sixteen sites, with hyper-connections as first
published and with V4's (mHC, manifold-constrained), at two rates. The gain of a token is that of the product
of the sixteen matrices that mix its streams; gains are averaged over tokens, as in the mHC paper.

Report: section 2.2; arXiv 2512.24880, section 3.1. Axes: b rows, s tokens, l sites, j and k streams.
"""

import argparse
import itertools
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from workbench.config import CSA, HCA, SWA
from workbench.model import Transformer, observe
from workbench.model.mixing import composites, gains
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.records import FOLDER, Records
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.stability_study import LENGTH, RATE, ROWS, progressions, study_config
from workbench.training.studies.switches import hyper_connections

COMMAND = "python -m workbench.training.gain_study"
RECORD = FOLDER / "gains.json"
STREAMS = ("free", "mHC")
SEEDS, FACTORS = (10, 11, 12), (1, 8)  # of the rate
LAYERS, STEPS = 8, 60


def network(streams: str, seed: int) -> Transformer:
    """A fresh network of eight layers.

    Raises:
        ValueError: an unknown kind of streams.
    """
    if streams not in STREAMS:
        raise ValueError(f"network: got streams {streams!r}; needs one of {STREAMS}; choose one")
    kinds, ratios = (SWA, CSA, HCA), (0, 4, 16)
    config = study_config().replace(
        num_hidden_layers=LAYERS,
        layer_types=tuple(kinds[i % 3] for i in range(LAYERS)),
        compress_ratios=tuple(ratios[i % 3] for i in range(LAYERS)),
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    if streams == "free":
        hyper_connections(model)
    return model


@torch.no_grad()
def composite_gains(model: Transformer, ids: Tensor, sample_ids: Tensor) -> dict[str, float]:
    """Gain of each token's product of matrices, upward for a signal and downward for a gradient."""
    layers = observe(model, ids, sample_ids=sample_ids).layers.values()
    comb = [maps.comb for layer in layers for maps in (layer.attn_mixing, layer.ffn_mixing)]
    products = composites(rearrange(torch.stack(comb), "l b s j k -> (b s) l k j").double())
    found = gains(products[:, -1])
    return {
        "signal": float(found.forward.mean()),
        "gradient": float(found.backward.mean()),
        "worst": float(torch.maximum(found.forward, found.backward).max()),
    }


def run(streams: str, factor: int, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """One run: gains before and after, and the losses."""
    model, loader = network(streams, seed), Loader(progressions(400), LENGTH, seed)
    rate = factor * RATE
    recipe = Recipe(
        LearningRate(rate, rate, min(10, steps), 0, steps),
        BatchRamp(ROWS, ROWS, 0),
        micro_rows=ROWS,
        bias_step=1e-2,
    )
    sample = loader.peek(ROWS, ahead=steps * ROWS)
    fresh = composite_gains(model, sample.input_ids, sample.sample_ids)
    losses = [row["loss"] for row in train(model, loader, recipe)]
    trained = composite_gains(model, sample.input_ids, sample.sample_ids)
    return {
        "fresh": fresh,
        "trained": trained,
        "end": float(np.mean(losses[-10:])),
        "worst_loss": max(losses),
    }


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """The recorded runs by (streams, factor, seed)."""
    return Records(RECORD, COMMAND).by("streams", "factor", "seed")


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)  # sums in another order are another run
    records = Records(RECORD, COMMAND)
    for factor, seed, streams in itertools.product(FACTORS, SEEDS, STREAMS):
        key = {"streams": streams, "factor": factor, "seed": seed}
        found = records.get(key, partial(run, streams, factor, seed))
        print(key, found["trained"], f"end {found['end']:.3f}", flush=True)


if __name__ == "__main__":
    main()
