"""Fits the constants of the kernel simulators to published measurements, and says how well they predict.

    python -m workbench.chips.calibration            # fit, validate, write data/chips/calibration.json

Constants are fitted in stages, each on the rows that show it alone: dense products, mixing (vector work),
experts, attention modules; then Ascend's products. The loss is the logarithm of predicted over measured,
with outliers bounded (soft L1). Intervals come from a bootstrap over shapes: a shape's rows on all GPUs are
drawn together. What cannot be fitted is assumed, with its band, in data/chips/kernel_assumptions.json.

Two validations: every row of one GPU left out, its constants then being those of its generation fitted on
the others, or of its family; and a fifth of the shapes left out.
"""

from workbench.chips.calibration.fit import assumed, fit_all
from workbench.chips.calibration.table import Table, read_rows
from workbench.chips.calibration.validation import validate

__all__ = ["Table", "assumed", "fit_all", "read_rows", "validate"]
