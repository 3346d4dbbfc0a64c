"""Published measurements, each beside a prediction or with the reason why there is none."""

from workbench.chips.validation.judge import Summary, validate
from workbench.chips.validation.rows import Result, read_measurements, write_table

__all__ = ["Result", "Summary", "read_measurements", "validate", "write_table"]
