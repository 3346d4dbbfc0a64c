"""What the stressors do, and that a run which was calm spikes under them."""

from contextlib import nullcontext
from statistics import fmean

import ml_dtypes
import numpy as np
import pytest

from tests.training.small_run import documents, make
from workbench import quant
from workbench.training.loop import Recipe, train
from workbench.training.parameter_groups import make_optimizers
from workbench.training.schedules import LearningRate
from workbench.training.spikes import SpikeDetector, SpikeRule
from workbench.training.stressors import coarse_weights, faster, repeat_tokens


def constant(steps):
    model, loader, recipe = make(steps=steps)
    return model, loader, Recipe(LearningRate(0.02, 0.02, 2, 0, steps), recipe.batch, micro_rows=4)


def test_a_calm_run_spikes_at_a_hundred_times_the_rate():
    model, loader, recipe = constant(14)
    detector = SpikeDetector(SpikeRule(window=6, threshold=4.0, least_rise=0.3))
    assert not any(row["is_spike"] for row in train(model, loader, recipe, detector=detector))
    hot = faster(recipe, 100.0)
    assert (hot.rate.peak, hot.rate.final) == (2.0, 2.0)
    rows = list(train(model, loader, hot, detector=detector))
    assert any(row["is_spike"] for row in rows[:4])
    assert max(row["loss"] for row in rows) > 8  # beyond what an even guess costs, log 64 = 4.2 and MTP's


def test_weights_stay_on_the_grid_within_and_leave_it_after():
    model, loader, recipe = constant(4)
    optimizers = make_optimizers(model, 0.02)
    matrices = [p for p in model.parameters() if p.ndim > 1]

    def off_grid():
        values = [p.detach().numpy() for p in matrices]
        return sum(int((x != x.astype(ml_dtypes.bfloat16).astype(np.float32)).sum()) for x in values)

    run = train(model, loader, recipe, optimizers=optimizers)
    with coarse_weights(optimizers, "bf16"):
        next(run)
        next(run)
        assert off_grid() == 0
    next(run)
    assert off_grid() > 1000


def test_a_run_in_eight_bits_without_scales_learns_less():
    losses = {}
    for name in ("fp8_v3", "fp8_unscaled", None):
        model, loader, recipe = constant(20)
        with nullcontext() if name is None else quant.apply(model, name):
            rows = list(train(model, loader, recipe))
        losses[name] = fmean(row["loss"] for row in rows[-4:])
    assert losses["fp8_unscaled"] > losses[None] + 0.1
    assert losses["fp8_v3"] != losses[None]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_documents_repeats_one_of_its_tokens(share):
    own = documents()
    stressed = repeat_tokens(own, share, seed=2)
    changed = [(a, b) for a, b in zip(own, stressed, strict=True) if a != b]
    assert len(changed) == round(share * len(own))
    assert all(len(a) == len(b) and len(set(b)) == 1 and b[0] in a for a, b in changed)
    assert stressed == repeat_tokens(own, share, seed=2)


def test_stress_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^faster: got factor=0"):
        faster(constant(4)[2], 0)
    with pytest.raises(ValueError, match=r"^repeat_tokens: got share=1\.5"):
        repeat_tokens(documents(), 1.5, seed=0)
