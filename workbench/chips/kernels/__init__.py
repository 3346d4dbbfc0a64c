"""Kernel simulators: operations on a chip as seconds, one simulator for each architecture family."""

from workbench.chips.kernels.constants import Calibration, Constant, load_calibration
from workbench.chips.kernels.simulate import KernelTime, kernel_time, kernel_times
from workbench.chips.kernels.timeline import Span, Timeline, timeline

__all__ = [
    "Calibration",
    "Constant",
    "KernelTime",
    "Span",
    "Timeline",
    "kernel_time",
    "kernel_times",
    "load_calibration",
    "timeline",
]
