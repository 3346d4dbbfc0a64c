"""How like two sets of pictures are: PSNR, SSIM, Fréchet distance, nearest neighbour.

Axes: b pictures, y and x pixels, f features. Values run from -1 to 1, so a picture's range is 2.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

RANGE = 2.0
N_THINNINGS = 4


def psnr(ours: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture or video, in dB: (b, ...) twice -> (b,)."""
    error = ((ours - truth) ** 2).flatten(1).mean(dim=1)
    return 10 * torch.log10(RANGE**2 / error.clamp(min=1e-12))


def ssim(ours: Tensor, truth: Tensor, window: int = 7) -> Tensor:
    """Structural similarity of each picture: (b, y, x) twice -> (b,).

    Uniform windows that lie inside the picture, sample variances, K1 = 0.01, K2 = 0.03.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13.
    Raises:
        ValueError: pictures of two shapes, or smaller than the window.
    """
    if ours.shape != truth.shape or ours.ndim != 3 or min(ours.shape[1:]) < window:
        raise ValueError(
            f"ssim: got {tuple(ours.shape)} and {tuple(truth.shape)} with window={window}; needs two equal "
            f"(b, y, x) no smaller than the window; crop them alike or take a smaller window"
        )

    def windows(pictures: Tensor) -> Tensor:
        return rearrange(F.unfold(pictures[:, None], window), "b p w -> b w p")

    a, b = windows(ours.double()), windows(truth.double())
    mean_a, mean_b = a.mean(dim=-1), b.mean(dim=-1)
    covariance = ((a - mean_a[..., None]) * (b - mean_b[..., None])).sum(dim=-1) / (window**2 - 1)
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (likeness / ((mean_a**2 + mean_b**2 + c1) * (a.var(dim=-1) + b.var(dim=-1) + c2))).mean(dim=1)


def frechet_distance(ours: Tensor, truth: Tensor) -> float:
    """Fréchet distance of the two normal distributions fitted to two sets of features.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½). It grows as sets get smaller: compare sets of one size, or see
    `frechet_corrected`.

    Shapes: (b, f), (b', f); at least two rows each.
    """
    a, b = ours.double(), truth.double()
    c1, c2 = torch.cov(a.T), torch.cov(b.T)
    # tr (C1 C2)^½ is the sum of the singular values of C1^½ C2^½: no root of an unsymmetric matrix.
    cross = torch.linalg.svdvals(_root(c1) @ _root(c2)).sum()
    between = ((a.mean(dim=0) - b.mean(dim=0)) ** 2).sum()
    return float(between + c1.trace() + c2.trace() - 2 * cross)


def _root(c: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(c)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def frechet_corrected(ours: Tensor, truth: Tensor, generator: torch.Generator, n_sizes: int = 6) -> float:
    """The Fréchet distance that sets without end would have: a line in 1/n through several sizes.

    Both sets are thinned alike, from all rows down to a third, and the line is read at 1/n = 0.

    Source: Chong and Forsyth, "Effectively unbiased FID" (arXiv 1911.07023), which thins one of the sets.
    Raises:
        ValueError: fewer rows than three times the features, where the line is no line yet.
    """
    n, f = min(len(ours), len(truth)), ours.shape[1]
    if n < 3 * f:
        raise ValueError(
            f"frechet_corrected: got {n} rows of {f} features; needs {3 * f} rows or more; give more samples "
            f"or fewer features"
        )
    # Each size several times: which rows are left matters as much as how many.
    sizes = torch.linspace(n / 3, n, n_sizes).long().repeat(N_THINNINGS)
    values = []
    for size in sizes:
        chosen = [rows[torch.randperm(len(rows), generator=generator)[:size]] for rows in (ours, truth)]
        values.append(frechet_distance(*chosen))
    design = torch.stack([torch.ones(len(sizes), dtype=torch.double), 1 / sizes.double()], dim=1)
    return float(torch.linalg.lstsq(design, torch.tensor(values, dtype=torch.double)[:, None]).solution[0])


def nearest_distances(ours: Tensor, known: Tensor) -> Tensor:
    """Distance of each picture to the nearest known one, root mean square a pixel: (b, ...) -> (b,)."""
    a, b = ours.flatten(1), known.flatten(1)
    return torch.cdist(a, b).amin(dim=1) / a.shape[1] ** 0.5
