"""Pre-training: optimiser, schedules, data, loop."""

from workbench.training.muon import Muon
from workbench.training.newton_schulz import HYBRID, orthogonalise
from workbench.training.parameter_groups import make_optimizers, parameter_groups
from workbench.training.schedules import BatchRamp, LearningRate

__all__ = [
    "HYBRID",
    "BatchRamp",
    "LearningRate",
    "Muon",
    "make_optimizers",
    "orthogonalise",
    "parameter_groups",
]
