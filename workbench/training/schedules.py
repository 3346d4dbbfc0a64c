"""What changes along a run: learning rate, batch size, weight of the multi-token-prediction (MTP) loss.

Report: section 4.2.2: 2000 steps of linear warm-up, a long plateau, a cosine to a tenth at the end; a
batch that grows to its largest; an MTP weight of 0.3, and 0.1 from the start of the decay.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up, plateau, cosine decay. Steps count from 0; the last one has nearly the final rate.

    Args:
        peak, final: rates on the plateau and after the decay.
        warmup_steps: the first step has peak / warmup_steps.
        decay_steps: how many steps the cosine takes, at the end of `total_steps`.

    Raises:
        ValueError: the peak is not above 0, the final rate is below 0, or warm-up and decay do not fit into
            the run.
    """

    peak: float
    final: float
    warmup_steps: int
    decay_steps: int
    total_steps: int

    def __post_init__(self) -> None:
        if not (self.peak > 0 and self.final >= 0):
            raise ValueError(
                f"LearningRate: got peak={self.peak} and final={self.final}; needs peak > 0 and final >= 0; "
                f"the report's are 2e-4 and a tenth of it"
            )
        if min(self.warmup_steps, self.decay_steps) < 0 or (
            self.warmup_steps + self.decay_steps > self.total_steps
        ):
            raise ValueError(
                f"LearningRate: got warmup_steps={self.warmup_steps} and decay_steps={self.decay_steps} in "
                f"total_steps={self.total_steps}; both must fit; shorten them or train longer"
            )

    @property
    def decay_start(self) -> int:
        return self.total_steps - self.decay_steps

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if step < self.decay_start:
            return self.peak
        progress = min((step - self.decay_start + 1) / self.decay_steps, 1.0) if self.decay_steps else 1.0
        return self.final + (self.peak - self.final) * (1 + math.cos(math.pi * progress)) / 2

    def mtp_weight(self, step: int) -> float:
        """0.3 until the decay starts, then 0.1."""
        return 0.3 if step < self.decay_start else 0.1


@dataclass(frozen=True)
class BatchRamp:
    """Sequences a step: linear in the step from `first` to `largest` over `ramp_steps`, then constant.

    The report says only that the batch grows; linear in steps is our choice.
    """

    first: int
    largest: int
    ramp_steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.largest or self.ramp_steps < 0:
            raise ValueError(
                f"BatchRamp: got first={self.first}, largest={self.largest}, ramp_steps={self.ramp_steps}; "
                f"needs 1 <= first <= largest and ramp_steps >= 0; correct the one outside"
            )

    def __call__(self, step: int) -> int:
        if step >= self.ramp_steps:
            return self.largest
        return self.first + (self.largest - self.first) * step // self.ramp_steps
