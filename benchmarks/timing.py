"""Timing two ways of doing one thing in turns, so that a busy machine slows both alike."""

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def side_by_side(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each, and the median and range of the ratios of neighbouring runs.

    One call of each comes first and is not counted.
    """
    ours()
    peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    return {
        "ours_s": median(mine for mine, _ in pairs),
        "peer_s": median(theirs for _, theirs in pairs),
        "ratio": median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
    }


def of_steps(ours: list[float], peer: list[float]) -> dict[str, float]:
    """Median seconds of the steps of two runs, one after the other, and their ratio with its extremes."""
    return {
        "ours_s": median(ours),
        "peer_s": median(peer),
        "ratio": median(peer) / median(ours),
        "ratio_low": min(peer) / max(ours),
        "ratio_high": max(peer) / min(ours),
    }
