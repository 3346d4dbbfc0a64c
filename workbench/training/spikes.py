"""Which losses are spikes.

A spike is a loss that lies above the median of the last `window` losses by more than `threshold` times
their spread (1.4826 times the median distance from the median, which is the standard deviation of normal
losses) and by more than `least_rise` nats. Spikes count as losses too: a level that stays for half the
window is the new normal. No loss is judged before the window is full.

Report: section 4.2.3 has a detector and does not print its rule; this one is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpikeRule:
    """Raises:
    ValueError: a window below 3, or a threshold or rise below 0.
    """

    window: int = 32
    threshold: float = 6.0
    least_rise: float = 0.1

    def __post_init__(self) -> None:
        if self.window < 3 or self.threshold < 0 or self.least_rise < 0:
            raise ValueError(
                f"SpikeRule: got window={self.window}, threshold={self.threshold}, least_rise="
                f"{self.least_rise}; needs window >= 3 and the others >= 0; correct the one outside"
            )

    def limit(self, losses: Tensor) -> float:
        """The largest loss that is no spike after these (window,)."""
        median = losses.quantile(0.5)
        spread = 1.4826 * (losses - median).abs().quantile(0.5)
        return float(median + max(self.threshold * float(spread), self.least_rise))


class SpikeDetector:
    """Judges the losses of a run one after the other; its memory belongs to the run's checkpoints."""

    def __init__(self, rule: SpikeRule):
        self.rule = rule
        self._losses: list[float] = []

    def note(self, loss: float) -> bool:
        """Whether this loss is a spike after those before it."""
        is_full = len(self._losses) == self.rule.window
        is_spike = is_full and loss > self.rule.limit(torch.tensor(self._losses, dtype=torch.float64))
        self._losses = [*self._losses, loss][-self.rule.window :]
        return is_spike

    def state_dict(self) -> dict[str, Tensor]:
        return {"losses": torch.tensor(self._losses, dtype=torch.float64)}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self._losses = tensors["losses"].tolist()[-self.rule.window :] if "losses" in tensors else []
