"""What makes a run spike on purpose, to see what helps: too high a rate, coarse numbers, repeated tokens.

A fourth is `quant.apply(model, recipe)`, which runs products in the formats of a recipe while it is entered:
"fp8_unscaled" loses most.

Report: section 4.2.3 names the trouble, not what provoked it; these three are common suspects.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from workbench.quant.fake import fake_quantize
from workbench.training.loop import Recipe


def faster(recipe: Recipe, factor: float) -> Recipe:
    """The same recipe with `factor` times its rates.

    Raises:
        ValueError: factor is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"faster: got factor={factor}; needs a number above 0; 1 changes nothing")
    rate = replace(recipe.rate, peak=factor * recipe.rate.peak, final=factor * recipe.rate.final)
    return replace(recipe, rate=rate)


@contextmanager
def coarse_weights(optimizers: Sequence[torch.optim.Optimizer], fmt: str) -> Iterator[None]:
    """Within, every matrix is rounded to a format of `quant` after each step: no finer copy is kept.

    Updates smaller than half a step of the format are lost, as in training without master weights.

    Raises:
        ValueError: the format is unknown, or refuses a shape.
    """

    @torch.no_grad()
    def round_weights(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.ndim > 1:
                    p.copy_(fake_quantize(p, fmt))

    hooks = [optimizer.register_step_post_hook(round_weights) for optimizer in optimizers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def repeat_tokens(documents: Sequence[Sequence[int]], share: float, seed: int) -> list[list[int]]:
    """Documents of which a share, chosen by lot, is one of its own tokens over and over.

    Raises:
        ValueError: share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"repeat_tokens: got share={share}; needs a share of the documents in [0, 1]")
    rng = random.Random(seed)
    chosen = set(rng.sample(range(len(documents)), round(share * len(documents))))
    return [
        [rng.choice(document)] * len(document) if number in chosen else list(document)
        for number, document in enumerate(documents)
    ]
