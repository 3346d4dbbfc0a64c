"""Layered images of which only the parts that are read are loaded: why a sandbox starts at once.

An image is layers, the topmost first; each has a file of blocks and a sorted index of their numbers. To
start eagerly is to copy every block. To start on demand is to open the indexes; each block is looked up,
by bisection on the disk, and read when it is asked for. So a start costs what it reads, however large the
image.

Report: section 5.2.5.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

BLOCK_BYTES = 65_536


def write_layer(folder: str | Path, blocks: Mapping[int, bytes]) -> Path:
    """Write a layer: the blocks that it adds or replaces.

    Raises:
        ValueError: no blocks, or one of another size than BLOCK_BYTES.
    """
    wrong = [number for number, block in blocks.items() if len(block) != BLOCK_BYTES]
    if wrong or not blocks:
        raise ValueError(
            f"write_layer: got {len(blocks)} blocks, {wrong[:3]} of another size than {BLOCK_BYTES} bytes; "
            f"needs one or more of that size; pad them"
        )
    path = Path(folder)
    path.mkdir(parents=True)
    with open(path / "blocks", "wb") as file:
        for number in sorted(blocks):
            file.write(blocks[number])
    np.save(path / "index.npy", np.array(sorted(blocks), dtype=np.int64))
    return path


class Image:
    """Layers seen as one: a block is that of the topmost layer that has it. `loaded_bytes` counts reads."""

    def __init__(self, *layers: Path):
        self.layers = layers
        self._indexes = [np.load(layer / "index.npy", mmap_mode="r", allow_pickle=False) for layer in layers]
        self.loaded_bytes = 0

    def read(self, number: int) -> bytes:
        """One block.

        Raises:
            KeyError: no layer has it.
        """
        for layer, index in zip(self.layers, self._indexes, strict=True):
            place = int(np.searchsorted(index, number))
            if place < len(index) and index[place] == number:
                with open(layer / "blocks", "rb") as file:
                    file.seek(place * BLOCK_BYTES)
                    self.loaded_bytes += BLOCK_BYTES
                    return file.read(BLOCK_BYTES)
        raise KeyError(number)

    def copy_to(self, path: Path) -> None:
        """Every block in order of its number: what an eager start does before anything can run."""
        with open(path, "wb") as file:
            for number in np.unique(np.concatenate(self._indexes)).tolist():
                file.write(self.read(number))
