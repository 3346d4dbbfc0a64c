"""How noisy the gradient is that one sampled token gives, in closed form.

The loss stop(r(y)) log q(y) of a token y drawn from q has, on the student's logits z, the gradient

    g(y) = (r(y) - c) (e_y - q),     r(y) = log q(y) - log p(y),     c any baseline

whose mean is the gradient of the full-vocabulary reverse KL, q ⊙ (r - KL(q‖p)). So its noise

    E ‖g‖² - ‖E g‖²,     E ‖g‖² = Σ_y q(y) (r(y) - c)² (1 - 2 q(y) + ‖q‖²)

needs no sampling. The full-vocabulary loss has none of this; what both have is the noise of the states.

Report: V4 section 5.1.2. Axes: v vocabulary.
"""

from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from workbench.distillation.divergences import kl


class Noise(NamedTuple):
    """Of one next-token distribution, or a batch of them: shapes (...)."""

    mean_square: Tensor  # ‖E g‖², the squared length of the true gradient
    variance: Tensor  # the trace of the covariance of one token's gradient

    @property
    def relative(self) -> Tensor:
        """Variance over squared mean: this many tokens averaged make the noise as small as the signal."""
        return self.variance / self.mean_square


def one_token_noise(student_logits: Tensor, teacher_logits: Tensor, *, has_baseline: bool = False) -> Noise:
    """The noise of the one-token estimate; the baseline, if any, is the token's own KL.

    Shapes: both (..., v) -> Noise of (...).
    """
    log_q, log_p = student_logits.log_softmax(dim=-1), teacher_logits.log_softmax(dim=-1)
    q, r, mean = log_q.exp(), log_q - log_p, kl(log_q, log_p)[..., None]
    gradient = q * (r - mean)
    square = reduce(gradient**2, "... v -> ...", "sum")
    length = 1 - 2 * q + reduce(q**2, "... v -> ... 1", "sum")  # ‖e_y - q‖²
    own = r - mean if has_baseline else r
    second = reduce(q * own**2 * length, "... v -> ...", "sum")
    return Noise(square, second - square)


def noise_table(
    vocabularies: tuple[int, ...] = (100, 1_000, 10_000),
    peaks: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0),
    distances: tuple[float, ...] = (0.1, 1.0),
    *,
    pairs: int = 20,
    seed: int = 0,
) -> list[dict[str, float]]:
    """The relative noise over vocabulary, peakedness and distance, medians and quartiles over random pairs.

    Student logits are normal with standard deviation `peak`; the teacher's are the student's plus normal
    numbers of standard deviation `distance`.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for words in vocabularies:
        for peak in peaks:
            for distance in distances:
                z = peak * torch.randn(pairs, words, generator=generator, dtype=torch.float64)
                teacher = z + distance * torch.randn(pairs, words, generator=generator, dtype=torch.float64)
                log_q = z.log_softmax(dim=-1)
                row = {"vocabulary": float(words), "peak": peak, "distance": distance}
                row["entropy"] = float(-(log_q.exp() * log_q).sum(dim=-1).median())
                row["kl"] = float(kl(log_q, teacher.log_softmax(dim=-1)).median())
                for name, has_baseline in (("noise", False), ("noise_baseline", True)):
                    found = one_token_noise(z, teacher, has_baseline=has_baseline).relative
                    low, middle, high = found.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=found.dtype))
                    row |= {name: float(middle), f"{name}_low": float(low), f"{name}_high": float(high)}
                rows.append(row)
    return rows
