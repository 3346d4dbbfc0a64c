"""Layered images of which only the parts that are read are loaded: why a sandbox starts at once.

An image is layers, the topmost first; each has a file of blocks and an index that says where each of its
blocks stands. To start eagerly is to copy every block. To start on demand is to read the indexes, and each
block when it is asked for.

Report: section 5.2.5.
"""

import json
from pathlib import Path

BLOCK_BYTES = 65_536


def write_layer(folder: str | Path, blocks: dict[int, bytes]) -> Path:
    """Write a layer: the blocks that it adds or replaces.

    Raises:
        ValueError: a block of another size than BLOCK_BYTES.
    """
    path = Path(folder)
    path.mkdir(parents=True)
    with open(path / "blocks", "wb") as file:
        for number, block in blocks.items():
            if len(block) != BLOCK_BYTES:
                raise ValueError(
                    f"write_layer: block {number} has {len(block)} bytes; needs {BLOCK_BYTES}; pad it"
                )
            file.write(block)
    (path / "index").write_text(json.dumps(list(blocks)))
    return path


class Image:
    """Layers seen as one: a block is that of the topmost layer that has it. `loaded_bytes` counts reads."""

    def __init__(self, *layers: Path):
        self.layers = layers
        self._place: dict[int, tuple[Path, int]] = {}
        self.loaded_bytes = 0
        for layer in reversed(layers):
            for place, number in enumerate(json.loads((layer / "index").read_text())):
                self._place[number] = (layer, place)

    def __len__(self) -> int:
        return len(self._place)

    def read(self, number: int) -> bytes:
        """One block.

        Raises:
            KeyError: no layer has it.
        """
        layer, place = self._place[number]
        with open(layer / "blocks", "rb") as file:
            file.seek(place * BLOCK_BYTES)
            block = file.read(BLOCK_BYTES)
        self.loaded_bytes += len(block)
        return block

    def copy_to(self, path: Path) -> None:
        """Every block in order of its number: what an eager start does before anything can run."""
        with open(path, "wb") as file:
            for number in sorted(self._place):
                file.write(self.read(number))
