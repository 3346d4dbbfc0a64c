"""Which stored tensors make up a model, and where each of them goes.

The plan is read off `accounting.tensors`, the list behind every count, so what is counted and what is
loaded cannot differ.

Source: the released checkpoints' tensor lists; transformers' deepseek_v4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from workbench import accounting
from workbench.config import ModelConfig
from workbench.model import names
from workbench.quant.blocks import BlockFormat
from workbench.quant.formats import V4_EXPERT, V4_WEIGHT

FileLayout = Literal["official", "transformers", "transformers save", "transformers resave"]
"""Who named the tensors: DeepSeek's release, transformers' modules, or transformers' save_pretrained.

The last undoes the renamings of its load, and only in part: "save" is what it makes of a fresh model or
of a release, "resave" of a model loaded under the modules' names.
"""

# A weight or a table is called by its module in the list of tensors; these are tensors themselves.
_BARE = frozenset(
    "sinks position_bias fn base scale hc_fn hc_base hc_scale tid2eid e_score_correction_bias".split()
)
_BLOCK_FORMATS = {"FP8": V4_WEIGHT, "FP4": V4_EXPERT}


@dataclass(frozen=True)
class Stored:
    """One tensor of the files and its place in the model's state dict.

    `shape` counts numbers, not bytes. An expert's matrix fills `target[expert]` from `first_row` on; other
    tensors fill their target.
    """

    name: str
    target: str
    shape: tuple[int, ...]
    source: accounting.Tensor
    expert: int | None = None
    first_row: int = 0

    @property
    def block_format(self) -> BlockFormat | None:
        """How the release stores it, if in blocks that share a scale."""
        return _BLOCK_FORMATS.get(self.source.stored)

    @property
    def is_integer(self) -> bool:
        return self.source.stored == "I64"

    def dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Its type in a model of `dtype`: vectors, mixing matrices and position biases stay fp32.

        Source: V4 reference code; transformers' list of modules kept in fp32.
        """
        if self.is_integer:
            return torch.int64
        return torch.float32 if self.source.stored == "F32" or len(self.shape) == 1 else dtype


def plan(config: ModelConfig, layout: FileLayout) -> list[Stored]:
    """Every tensor that a checkpoint of this model holds, block scales left out.

    Raises:
        ValueError: the configuration is no V4 model.
    """
    if config.model_type != "deepseek_v4":
        raise ValueError(
            f"plan: got model_type {config.model_type!r}; checkpoints of 'deepseek_v4' are read and written "
            f"here; choose a V4 model"
        )
    renames: dict[FileLayout, Callable[[str], str]] = {
        "official": names.to_official,
        "transformers": str,
        "transformers save": names.to_saved,
        "transformers resave": names.to_resaved,
    }
    rename = renames[layout]
    stored = []
    for row in accounting.tensors(config):
        at, _, leaf = row.name.rpartition(".")
        if row.kind != "experts":
            name = row.name if leaf in _BARE else f"{row.name}.weight"
            stored.append(Stored(rename(name), name, row.shape, row))
            continue
        # The gate's rows come first in the stacked tensor, then the up projection's.
        first_row = row.shape[0] if leaf == "up_proj" else 0
        target = f"{at}.down_proj" if leaf == "down_proj" else f"{at}.gate_up_proj"
        if layout in ("official", "transformers save"):
            for expert in range(row.copies):
                name = rename(f"{at}.{expert}.{leaf}.weight")
                stored.append(Stored(name, target, row.shape, row, expert, first_row))
        elif leaf != "up_proj":
            rows = row.shape[0] * (2 if leaf == "gate_proj" else 1)
            stored.append(Stored(rename(target), target, (row.copies, rows, row.shape[1]), row))
    return stored


def layout_of(stored_names: Iterable[str]) -> FileLayout:
    """Whose names these are, by how they call a layer."""
    stored_names = list(stored_names)
    if any(".self_attn.norm." in name for name in stored_names):
        return "transformers resave"
    if any(".self_attn." in name for name in stored_names):
        return "transformers"
    if any(name.startswith("model.layers.") for name in stored_names):
        return "transformers save"
    return "official"


def without_mtp(config: ModelConfig) -> ModelConfig:
    """The same model with its multi-token-prediction blocks left out."""
    return config.replace(num_nextn_predict_layers=0, compress_ratios=config.layer_ratios)
