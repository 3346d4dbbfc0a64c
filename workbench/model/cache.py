"""What a model remembers of the tokens it has read.

Two parts. The state cache has a fixed size: per layer a ring of the last window keys and, for each
compressor, a ring of raw projections that no entry has pooled yet (and of the window before, which
overlapping entries need). The compressed store grows with the text, in blocks (paging.py).

A ring keeps the last tokens at slot position mod capacity, with max_rewind more than attention needs:
so a rewind only lowers the lengths.

Report: section 3.6.1. Axes: b rows, r ring slots, c channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.config import CSA, SWA
from workbench.model.entries import Entries
from workbench.model.paging import BlockTable, PagedEntries
from workbench.model.v4_config import V4Config


@dataclass
class CompressedState:
    """One compressor's memory: the raw projections of recent tokens and the pool of finished entries.

    Shapes: tail (b, r, channels), pool (blocks, per_block, c).
    """

    tail: Tensor
    pool: Tensor


@dataclass
class LayerState:
    """One layer's memory: window keys, entries, and in CSA layers index keys. window (b, r, c)."""

    window: Tensor
    compressed: CompressedState | None
    index: CompressedState | None


class Cache:
    """The memory of a batch of rows that may have different lengths.

    `lengths` are the tokens read of each row. `model(ids, cache=cache)` reads more.
    `max_rewind` tokens at the end of what was read can be taken back with `rewind`.
    """

    def __init__(
        self,
        config: V4Config,
        batch_size: int,
        max_tokens: int,
        max_rewind: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.max_tokens, self.max_rewind = max_tokens, max_rewind
        self.sliding_window = config.sliding_window
        self.lengths = [0] * batch_size
        # Window keys before `origins` are not at hand, and entries before `stored` are not to be
        # written again: both 0 except while a prefix is restored (prefix.py).
        self.origins, self.stored = [0] * batch_size, [0] * batch_size
        self.furthest = [0] * batch_size  # the most tokens ever read: what a rewind is measured from
        block_tokens = math.lcm(*(ratio for ratio in config.layer_ratios if ratio))
        self.blocks = BlockTable(batch_size, block_tokens, batch_size * -(-max_tokens // block_tokens))

        def compressor(ratio: int, width: int, overlaps: bool) -> CompressedState:
            slots = (2 * ratio if overlaps else ratio) - 1 + max_rewind
            raw = 2 * width * (2 if overlaps else 1)
            return CompressedState(
                tail=torch.zeros(batch_size, slots, raw, dtype=dtype, device=device),
                pool=torch.zeros(0, block_tokens // ratio, width, dtype=dtype, device=device),
            )

        def layer(kind: str, ratio: int) -> LayerState:
            slots = max(1, config.sliding_window - 1 + max_rewind)
            return LayerState(
                window=torch.zeros(batch_size, slots, config.head_dim, dtype=dtype, device=device),
                compressed=None if kind == SWA else compressor(ratio, config.head_dim, kind == CSA),
                index=compressor(ratio, config.index_head_dim, True) if kind == CSA else None,
            )

        kinds = zip(config.attention_types, config.layer_ratios, strict=True)
        self.layers = [layer(kind, ratio) for kind, ratio in kinds]
        self.mtp = [layer(SWA, 0) for _ in range(config.num_nextn_predict_layers)]

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def stores(self) -> list[CompressedState]:
        """Every compressor's state, layer by layer."""
        return [
            store for layer in self.layers for store in (layer.compressed, layer.index) if store is not None
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the cache by name; writing into them changes the cache."""
        named = {f"layers.{i}.window": layer.window for i, layer in enumerate(self.layers)}
        named |= {f"mtp.{i}.window": layer.window for i, layer in enumerate(self.mtp)}
        for i, store in enumerate(self.stores):
            named |= {f"stores.{i}.tail": store.tail, f"stores.{i}.pool": store.pool}
        return named

    @property
    def state_bytes(self) -> int:
        """Bytes of the fixed part: window keys and uncompressed tails."""
        windows = [layer.window for layer in self.layers + self.mtp]
        return sum(tensor.nbytes for tensor in windows + [store.tail for store in self.stores])

    @property
    def store_bytes(self) -> int:
        """Bytes of the compressed store as allocated; it grows with the text."""
        return sum(store.pool.nbytes for store in self.stores)

    def prepare(self, counts: Sequence[int]) -> None:
        """Make room for `counts` more tokens in each row.

        Raises:
            ValueError: a row would exceed max_tokens.
        """
        longest = max(length + count for length, count in zip(self.lengths, counts, strict=True))
        if longest > self.max_tokens:
            raise ValueError(
                f"Cache: got {max(counts)} more tokens after {max(self.lengths)}; it holds max_tokens="
                f"{self.max_tokens}; make it with new_cache(..., max_tokens={longest}) or larger"
            )
        if not self.stores:
            return
        copies = []
        for row, (length, count) in enumerate(zip(self.lengths, counts, strict=True)):
            copies += self.blocks.prepare(row, length, length + count)
        self.grow()
        if copies:
            shared, own = torch.tensor(copies, device=self.layers[0].window.device).unbind(1)
            for store in self.stores:
                store.pool.index_copy_(0, own, store.pool.index_select(0, shared))

    def grow(self) -> None:
        """Enlarge the pools to hold every block in use. Doubling keeps the copying linear in the length."""
        needed = self.blocks.highest
        for store in self.stores:
            if needed > len(store.pool):
                room = min(max(needed, 2 * len(store.pool)), len(self.blocks.references))
                grown = store.pool.new_zeros(room, *store.pool.shape[1:])
                grown[: len(store.pool)] = store.pool
                store.pool = grown

    def advance(self, counts: Sequence[int]) -> None:
        """Note that `counts` tokens of each row were read."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        self.furthest = [max(pair) for pair in zip(self.furthest, self.lengths, strict=True)]

    def entries(self, store: CompressedState, row_blocks: Tensor | None) -> Entries:
        """A store's entries, addressed through the blocks of the rows (None: they lie in order)."""
        flat = store.pool.flatten(0, 1)
        if row_blocks is None:
            return Entries(flat, self.batch_size)
        return PagedEntries(flat, self.batch_size, row_blocks, store.pool.shape[1])

    def rewind(self, counts: int | Sequence[int]) -> None:
        """Forget the last `counts` tokens (of all rows, or one number a row).

        Raises:
            ValueError: more than the row has read, or further back than the rings reach (max_rewind
                tokens before the furthest position ever read).
        """
        counts = [counts] * self.batch_size if isinstance(counts, int) else list(counts)
        for row, count in enumerate(counts):
            limit = min(
                self.max_rewind - (self.furthest[row] - self.lengths[row]),
                self.lengths[row] - self.stored[row],
            )
            if not 0 <= count <= limit:
                raise ValueError(
                    f"Cache.rewind: got {count} tokens for row {row}; it can take back 0 to {limit}; "
                    f"make the cache with a larger max_rewind (now {self.max_rewind})"
                )
        for row, count in enumerate(counts):
            self.lengths[row] -= count
            self.blocks.truncate(row, self.lengths[row])

    def reorder(self, sources: Sequence[int]) -> None:
        """Row i continues from row sources[i]; there may be more rows afterwards, or fewer.

        For beam search, several samples of one prompt, or dropping rows that are finished. Blocks of the
        compressed store are shared until written; the state is copied.

        Raises:
            ValueError: no source at all, or one that is not a row.
        """
        if not sources or not all(0 <= source < self.batch_size for source in sources):
            raise ValueError(
                f"Cache.reorder: got {list(sources)}; it needs row numbers from 0 to {self.batch_size - 1}; "
                f"name one row to continue from for each row wanted"
            )
        index = torch.tensor(sources, device=self.layers[0].window.device)
        for layer in self.layers + self.mtp:
            layer.window = layer.window.index_select(0, index)
        for store in self.stores:
            store.tail = store.tail.index_select(0, index)
            if store.pool.requires_grad:  # the graph of what was read still needs the numbers there
                store.pool = store.pool.clone()
        self.lengths, self.furthest, self.origins, self.stored = (
            [values[source] for source in sources]
            for values in (self.lengths, self.furthest, self.origins, self.stored)
        )
        self.blocks.reorder(sources, len(sources) * -(-self.max_tokens // self.blocks.block_tokens))
