"""Post-training quantisation: find scales, rotations and codes for a trained network."""

from workbench.quant.ptq.methods import METHODS, calibrate

__all__ = ["METHODS", "calibrate"]
