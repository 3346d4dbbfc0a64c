"""What a simulated service gave its readers: waiting times, speeds, and how many were served in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """What a reader accepts: seconds to the first token, and seconds a token after it (mean of an answer)."""

    ttft_s: float
    tpot_s: float

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Limits: {name} is {getattr(self, name)}; it must be above 0; change it")


@dataclass(frozen=True)
class Outcome:
    """One run. Shapes: times and tokens (n,), in the order of the requests.

    found_tokens: of a prompt, in the prefix store; run_again_tokens: of those, computed again.
    computed_tokens: of all prompts, preempted ones again. steps, preemptions: of all instances.
    most_running: answers in one instance at once. prefill_busy, decode_busy: share of the time.
    """

    arrival_s: Floats
    first_s: Floats
    finish_s: Floats
    prompt_tokens: Integers
    output_tokens: Integers
    found_tokens: Integers
    run_again_tokens: Integers
    chips: float
    computed_tokens: int
    steps: int
    preemptions: int
    most_running: int
    prefill_busy: float
    decode_busy: float
    read_bytes: float = 0.0
    written_bytes: float = 0.0

    @property
    def ttft_s(self) -> Floats:
        """Seconds from request to first token."""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> Floats:
        """Seconds a token after the first, mean of an answer; nan where there is only one."""
        more = self.output_tokens - 1
        return np.where(more > 0, (self.finish_s - self.first_s) / np.maximum(more, 1), np.nan)

    @property
    def seconds(self) -> float:
        """From the first arrival to the last token."""
        return float(self.finish_s.max() - self.arrival_s[0])

    @property
    def output_tokens_per_s(self) -> float:
        """Over the whole run, filling and emptying included."""
        return float(self.output_tokens.sum()) / self.seconds

    @property
    def hit_share(self) -> float:
        """Share of all prompt tokens that were read instead of computed."""
        read = self.found_tokens.sum() - self.run_again_tokens.sum()
        return float(read / self.prompt_tokens.sum())

    def quantiles(self, shares: tuple[float, ...] = (0.5, 0.9, 0.99)) -> list[dict[str, float]]:
        """Rows {"share", "ttft_s", "tpot_s"}: so many requests wait less."""
        tpot = self.tpot_s[~np.isnan(self.tpot_s)]
        return [
            {
                "share": share,
                "ttft_s": float(np.quantile(self.ttft_s, share)),
                "tpot_s": float(np.quantile(tpot, share)) if len(tpot) else float("nan"),
            }
            for share in shares
        ]

    def kept(self, limits: Limits) -> npt.NDArray[np.bool_]:
        """Which requests stayed within the limits. An answer of one token has no time per token."""
        return (self.ttft_s <= limits.ttft_s) & ~(self.tpot_s > limits.tpot_s)

    def attainment(self, limits: Limits) -> float:
        """Share of the requests that stayed within the limits."""
        return float(self.kept(limits).mean())

    def goodput(self, limits: Limits) -> float:
        """Requests a second and chip that stayed within the limits."""
        return float(self.kept(limits).sum()) / self.seconds / self.chips

    def running(self, moments: npt.ArrayLike) -> Integers:
        """Requests in the system at given moments. Shapes: (t,) -> (t,)."""
        at = np.asarray(moments)
        came = np.searchsorted(np.sort(self.arrival_s), at, side="right")
        return came - np.searchsorted(np.sort(self.finish_s), at, side="right")
