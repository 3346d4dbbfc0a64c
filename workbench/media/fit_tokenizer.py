"""Training the tokenizer: on digits, on videos of them and, if asked, on photographs.

It must see every kind of picture that it will be asked for: what it cannot express, no model above it can
write.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from workbench.media.data import CANVAS, DIRECTIONS, SPEEDS, Pictures, move, photograph_crops
from workbench.media.tokenizer import MediaTokenizer

ROWS = 32


def all_videos(pictures: Pictures) -> Tensor:
    """Every picture moving in every way: (b, t, y, x), the ways in the order of DIRECTIONS, then SPEEDS."""
    return torch.cat([move(pictures.pixels, way, speed) for way in DIRECTIONS for speed in SPEEDS])


def fit_tokenizer(
    tokenizer: MediaTokenizer,
    pictures: Pictures,
    steps: int,
    *,
    seed: int = 0,
    rate: float = 3e-3,
    photographs: float = 0.0,
) -> Iterator[dict[str, float]]:
    """Train in place and yield each step's loss: half digits, half videos, a share of photographs if asked.

    The loss is the squared error plus 0.2 of the absolute one, plus what the quantiser asks for. No network
    that was trained elsewhere judges the pictures, as larger tokenizers have it: none is at hand.

    Args:
        photographs: share of the steps on crops of the two sample photographs.
    """
    generator = torch.Generator().manual_seed(seed)
    videos = all_videos(pictures)
    crops = photograph_crops(2000, CANVAS, seed) if photographs else None
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=rate, weight_decay=0.0)
    # OneCycleLR divides by the length of its warm-up less one step: a tenth of 10 would be nothing.
    warm_up = 0.1 if steps != 10 else 0.2
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=warm_up)
    tokenizer.train()
    for step in range(steps):
        if crops is not None and torch.rand((), generator=generator) < photographs:
            frames = _some(crops, 2 * ROWS, generator)[:, None]
        elif step % 2:
            frames = _some(videos, ROWS, generator)
        else:
            frames = _some(pictures.pixels, 2 * ROWS, generator)[:, None]
        found = tokenizer.quantise(frames)
        error = tokenizer.decode_values(found.values) - frames
        loss = (error**2).mean() + 0.2 * error.abs().mean() + found.extra_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield {"step": step + 1, "loss": loss.item()}
    tokenizer.eval()


def _some(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (n,), generator=generator)]
