"""Real pictures, and videos with known motion made from them.

The pictures are scikit-learn's: 1,797 digits written by hand, 8 x 8 in 17 grey levels, and two photographs.
All come with the package; nothing is fetched. Train and test part on the digit, before anything is made of
it, so no test video holds a digit that was trained on.

Axes: b pictures, t frames, y and x pixels. Values run from -1 (black) to 1 (white).
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from sklearn.datasets import load_digits, load_sample_images  # type: ignore[import-untyped]
from torch import Tensor

N_TEST = 360
CANVAS = 12  # side of a video's frame
N_FRAMES = 5
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (y, x)
SPEEDS = {"slowly": 0.5, "quickly": 1.0}  # pixels a frame


@dataclass(frozen=True)
class Pictures:
    """Digits with their class and style. Shapes: pixels (b, y, x); labels (b,); is_bold (b,).

    Bold digits are those with more ink (mean value) than the median training digit of their class: a style
    that can be measured on a picture.
    """

    pixels: Tensor
    labels: Tensor
    is_bold: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Digits:
    """The two parts, and the median ink of each class in the training part: (10,)."""

    train: Pictures
    test: Pictures
    median_ink: Tensor


def ink(pixels: Tensor) -> Tensor:
    """How much is drawn: the mean value of each picture, (b, y, x) -> (b,)."""
    return reduce(pixels, "b y x -> b", "mean")


@cache
def load_split(seed: int = 0) -> Digits:
    """The digits, 360 of them held out: which ones, the seed decides."""
    found = load_digits()
    pixels = torch.tensor(found.images, dtype=torch.float32) / 8 - 1
    labels = torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:N_TEST], order[N_TEST:]
    median = torch.stack([ink(pixels[train][labels[train] == digit]).median() for digit in range(10)])
    is_bold = ink(pixels) > median[labels]

    def part(chosen: Tensor) -> Pictures:
        return Pictures(pixels[chosen], labels[chosen], is_bold[chosen])

    return Digits(part(train), part(test), median)


def move(pixels: Tensor, direction: str, speed: str) -> Tensor:
    """A video of each picture moving over an empty canvas: (b, 8, 8) -> (b, t, 12, 12).

    It starts at the border that it moves away from, half way along it. At half a pixel a frame it stands
    still in every other frame.

    Raises:
        ValueError: an unknown direction or speed, or pictures larger than the canvas.
    """
    if direction not in DIRECTIONS or speed not in SPEEDS or max(pixels.shape[1:]) > CANVAS:
        raise ValueError(
            f"move: got {tuple(pixels.shape)}, {direction!r}, {speed!r}; needs pictures of at most {CANVAS} "
            f"pixels a side, a direction of {list(DIRECTIONS)} and a speed of {list(SPEEDS)}; choose those"
        )
    height, width = pixels.shape[1:]
    room = CANVAS - height, CANVAS - width
    frames = pixels.new_full((len(pixels), N_FRAMES, CANVAS, CANVAS), -1.0)
    for t in range(N_FRAMES):
        done = int(t * SPEEDS[speed])
        top, left = (
            free // 2 if not step else (0 if step > 0 else free) + step * done
            for free, step in zip(room, DIRECTIONS[direction], strict=True)
        )
        frames[:, t, top : top + height, left : left + width] = pixels
    return frames


def shifted(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """All pictures of a batch moved by up to one pixel, the same way, black coming in: (b, y, x) -> same."""
    dy, dx = torch.randint(0, 3, (2,), generator=generator).tolist()
    height, width = pixels.shape[1:]
    return F.pad(pixels, (1, 1, 1, 1), value=-1.0)[:, dy : dy + height, dx : dx + width]


def turned(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture turned by up to 12 degrees and moved by up to a pixel, on its own: (b, y, x) -> same.

    Ink stays nearly as it was, and so does what is bold; black comes in.
    """
    b, height, width = pixels.shape
    angle, right, down = torch.rand(3, b, generator=generator) * 2 - 1
    cos, sin = (angle * math.radians(12)).cos(), (angle * math.radians(12)).sin()
    # affine_grid measures in half sides.
    rows = [cos, -sin, 2 * right / width], [sin, cos, 2 * down / height]
    way = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)
    grid = F.affine_grid(way, [b, 1, height, width], align_corners=False)
    return F.grid_sample(pixels[:, None] + 1, grid, align_corners=False)[:, 0] - 1


def photograph_crops(n: int, size: int, seed: int = 0) -> Tensor:
    """Grey crops of the two sample photographs, at several scales: (n, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    photographs = [
        rearrange(torch.tensor(image, dtype=torch.float32), "y x c -> c y x").mean(dim=0) / 127.5 - 1
        for image in load_sample_images().images
    ]
    crops = []
    for index in range(n):
        image = photographs[index % len(photographs)]
        side = size * int(torch.randint(1, 9, (), generator=generator))
        top, left = (int(torch.randint(0, free - side, (), generator=generator)) for free in image.shape)
        crop = image[top : top + side, left : left + side]
        crops.append(reduce(crop, "(y a) (x b) -> y x", "mean", y=size, x=size))
    return torch.stack(crops)
