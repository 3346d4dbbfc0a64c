"""How something moves in a video, measured from its pixels alone.

Two ways that share nothing: the centre of mass of what is not background, and the peak of the phase
correlation of two frames (the shift that brings one onto the other).

Axes: b videos, t frames, y and x pixels.
"""

import torch
from einops import reduce
from torch import Tensor

from workbench.media.data import DIRECTIONS


def centres(videos: Tensor) -> Tensor:
    """Centre of mass of each frame, in pixels from the top left: (b, t, y, x) -> (b, t, 2) as (y, x).

    Weights are the values above black (-1). A frame that is black all over has its centre in the middle.
    """
    weight = (videos + 1).clamp(min=0) + 1e-6
    total = reduce(weight, "b t y x -> b t", "sum")
    y, x = (torch.arange(side, dtype=videos.dtype) for side in videos.shape[-2:])
    down = torch.einsum("btyx,y->bt", weight, y) / total
    right = torch.einsum("btyx,x->bt", weight, x) / total
    return torch.stack([down, right], dim=-1)


def phase_shift(before: Tensor, after: Tensor) -> Tensor:
    """The whole-pixel shift from one frame to another by phase correlation: (b, y, x) twice -> (b, 2).

    Shifts are read modulo the frame, the nearer way round.
    """
    a, b = torch.fft.fft2(before), torch.fft.fft2(after)
    cross = b * a.conj()
    peak = torch.fft.ifft2(cross / cross.abs().clamp(min=1e-9)).real
    height, width = before.shape[-2:]
    best = peak.flatten(1).argmax(dim=1)
    shift = torch.stack([best // width, best % width], dim=1)
    size = torch.tensor([height, width])
    return torch.where(shift > size // 2, shift - size, shift)


def directions(videos: Tensor) -> list[str]:
    """The direction that each video moves in, by its centre of mass in the first and the last frame."""
    moved = centres(videos)[:, -1] - centres(videos)[:, 0]
    names, steps = list(DIRECTIONS), torch.tensor(list(DIRECTIONS.values()), dtype=moved.dtype)
    return [names[int(best)] for best in (moved @ steps.T).argmax(dim=1)]


def speed_errors(videos: Tensor, truth: Tensor) -> Tensor:
    """Mean distance between the two videos' steps of the centre of mass, in pixels a frame: (b,)."""
    steps, wanted = centres(videos).diff(dim=1), centres(truth).diff(dim=1)
    return (steps - wanted).norm(dim=-1).mean(dim=1)


def steadiness(videos: Tensor) -> Tensor:
    """Temporal consistency: what one frame, shifted by the measured motion, explains of the next.

    1 minus the squared error over that of an unchanged picture of mean grey, averaged over the steps; 1 is a
    rigid motion. Shapes: (b, t, y, x) -> (b,).
    """
    explained = []
    for t in range(videos.shape[1] - 1):
        before, after = videos[:, t], videos[:, t + 1]
        shifts = phase_shift(before, after)
        carried = torch.stack(
            [
                frame.roll((int(dy), int(dx)), dims=(0, 1))
                for frame, (dy, dx) in zip(before, shifts, strict=True)
            ]
        )
        left = ((carried - after) ** 2).mean(dim=(1, 2))
        spread = ((after - after.mean(dim=(1, 2), keepdim=True)) ** 2).mean(dim=(1, 2))
        explained.append(1 - left / spread.clamp(min=1e-6))
    return torch.stack(explained).mean(dim=0)
