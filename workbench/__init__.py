"""The V4 Workbench: DeepSeek-V4 rebuilt small, counted exactly, and held against its report."""

import importlib
from types import ModuleType

from workbench import accounting, chips, report
from workbench.config import ModelConfig, load_config, presets

__all__ = [
    "ModelConfig",
    "accounting",
    "chips",
    "load_config",
    "model",
    "nb",
    "plots",
    "presets",
    "quant",
    "report",
    "widgets",
]

_LAZY = ("model", "nb", "plots", "quant", "widgets")


def __getattr__(name: str) -> ModuleType:
    # torch, plotly and ipywidgets take seconds to import: only who asks for them pays.
    if name in _LAZY:
        return importlib.import_module(f"workbench.{name}")
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")
