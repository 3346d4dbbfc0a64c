"""The files of a checkpoint folder: what their headers say, and one tensor at a time out of them.

Only safetensors are opened: nothing in them can run code. The format checks itself when a file is
opened (header, and that its length is that of its tensors), so a cut file never opens.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.config import ModelConfig
from workbench.model.names import scale_name
from workbench.quant.formats import V4_EXPERT, V4_WEIGHT

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip

# The release stores two FP4 numbers in a byte of type I8.
BLOCK_FORMATS = {"F8_E4M3": V4_WEIGHT, "I8": V4_EXPERT}


@dataclass(frozen=True)
class Entry:
    """One tensor as a header describes it; `dtype` is safetensors' word, such as "F8_E4M3"."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def stored_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Folder:
    """What the headers of a folder say, and what is wrong with its files."""

    path: Path
    entries: dict[str, Entry]
    n_files: int
    damage: tuple[str, ...]


def read_config(folder: str | Path) -> ModelConfig:
    """The configuration of a checkpoint folder.

    Raises:
        ValueError: there is no such folder, or its config.json is absent or is not a configuration.
    """
    path = _existing(folder) / CONFIG
    if not path.is_file():
        raise ValueError(
            f"read_config: {Path(folder)} holds no {CONFIG}, which says what the weights are; put the one "
            f"of the release beside them"
        )
    return ModelConfig.from_json(path)


def scan(path: str | Path) -> Folder:
    """Read every header of a folder: the shards that its index names, or its one file.

    Raises:
        ValueError: there is no such folder, or no safetensors to read in it.
    """
    path = _existing(path)
    entries: dict[str, Entry] = {}
    damage = []
    files = _weight_files(path)
    for name in files:
        file = path / name
        if Path(name).name != name or not file.is_file():
            damage.append(f"{name} is absent")
            continue
        try:
            with safe_open(file, framework="pt") as shard:
                for tensor in shard.keys():  # noqa: SIM118 (a shard is no mapping)
                    part = shard.get_slice(tensor)
                    if tensor in entries:
                        damage.append(f"{name} holds {tensor} again, after {entries[tensor].file.name}")
                    if part.get_dtype() not in ITEM_BYTES:
                        damage.append(f"{name} holds {tensor} in the unknown type {part.get_dtype()}")
                        continue
                    entries[tensor] = Entry(file, part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            damage.append(f"{name} cannot be opened ({error})")
    return Folder(path, entries, len(files), tuple(damage))


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"checkpoint: {folder} is no folder here; give the one that holds {CONFIG} and the weights"
        )
    return folder


def _weight_files(path: Path) -> list[str]:
    if (path / INDEX).is_file():
        try:
            weight_map = json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"]
            return sorted({str(file) for file in weight_map.values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"scan: {path / INDEX} is no index ({error!r}); it needs a weight_map from tensor to file; "
                f"fetch it again"
            ) from error
    if (path / SINGLE).is_file():
        return [SINGLE]
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    pickles = sorted(file.name for kind in ("bin", "pt", "pth", "ckpt") for file in path.glob(f"*.{kind}"))
    if shards:
        found, remedy = f"{len(shards)} shards without {INDEX}", "put the index of the release beside them"
    elif pickles:
        found = f"only {', '.join(pickles[:3])}: pickle files, which can run code when loaded"
        remedy = "convert them to safetensors in a place that you trust, or fetch the safetensors release"
    else:
        found, remedy = "no weights", "give the folder that holds them"
    raise ValueError(f"scan: {path} has {found}; it needs {INDEX} and its shards, or {SINGLE}; {remedy}")


class Shards:
    """Tensors of a scanned folder, one at a time. At most two shards are open: a weight's and its scale's."""

    def __init__(self, entries: Mapping[str, Entry]):
        self._entries = entries
        self._open: dict[Path, Any] = {}

    def stored(self, name: str) -> Tensor:
        """A tensor as it lies in the file."""
        file = self._entries[name].file
        if file not in self._open:
            while len(self._open) > 1:
                del self._open[next(iter(self._open))]
            self._open[file] = safe_open(file, framework="pt")
        return self._open[file].get_tensor(name)

    def numbers(self, name: str) -> Tensor:
        """A tensor in numbers: FP8 and FP4 blocks times their scales, in fp32; others as they lie."""
        fmt = BLOCK_FORMATS.get(self._entries[name].dtype)
        if fmt is None:
            return self.stored(name)
        codes, scales = self.stored(name), self.stored(scale_name(name))
        parts = {"codes": codes.view(torch.uint8), "scales": scales.view(torch.uint8)}
        return fmt.unpack(parts, fmt.shape_of(codes)).dequantize()


def by_file(entries: Mapping[str, Entry]) -> dict[Path, list[str]]:
    """The names of each file, files in order, so that each is opened once."""
    files = defaultdict(list)
    for name, entry in entries.items():
        files[entry.file].append(name)
    return dict(sorted(files.items()))
