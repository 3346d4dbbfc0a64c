"""Which rank updates which matrix: Muon needs whole matrices, so ZeRO cannot cut the weights evenly.

The report caps the ranks that share the dense weights and packs whole matrices onto them like a knapsack,
each rank's bucket padded to the largest. It states under 10 % of padding with at most five matrices a
rank.

Report: section 3.5.1 (hybrid ZeRO for Muon).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.accounting import tensors
from workbench.config import ModelConfig


@dataclass(frozen=True)
class Buckets:
    """Which matrices each rank holds, as positions in the list of sizes it was made from."""

    ranks: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @property
    def loads(self) -> tuple[int, ...]:
        """Elements of each rank, before padding."""
        return tuple(sum(self.sizes[i] for i in rank) for rank in self.ranks)

    @property
    def padding(self) -> float:
        """Padding to the largest load, as a share of all elements."""
        return len(self.ranks) * max(self.loads) / sum(self.sizes) - 1

    @property
    def most_matrices(self) -> int:
        return max(len(rank) for rank in self.ranks)


def pack(sizes: Sequence[int], ranks: int, most: int | None = None) -> Buckets:
    """Give every matrix to a rank: the largest first, each to the rank with the least so far.

    Without `most` the largest load is at most 4/3 of the best possible (Graham 1969). With it a rank that has
    so many matrices is full, so that the small ones spread out. How the report packs is not said.

    Raises:
        ValueError: fewer than one rank, no matrix for some rank, or more matrices than fit.
    """
    if not 1 <= ranks <= len(sizes):
        raise ValueError(
            f"pack: got ranks={ranks} for {len(sizes)} matrices; needs 1 to {len(sizes)}: a rank without a "
            f"matrix would only pad; use fewer ranks"
        )
    if most is not None and ranks * most < len(sizes):
        raise ValueError(
            f"pack: got {len(sizes)} matrices for {ranks} ranks of at most {most}; needs {ranks} × most >= "
            f"{len(sizes)}; use more ranks or raise most"
        )
    buckets: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, rank = heapq.heappop(loads)
        buckets[rank].append(i)
        if len(buckets[rank]) != most:
            heapq.heappush(loads, (load + sizes[i], rank))
    return Buckets(tuple(map(tuple, buckets)), tuple(sizes))


def dense_matrices(config: ModelConfig) -> dict[str, int]:
    """Elements of the matrices that Muon updates outside the routed experts, by name.

    Embedding, head, vectors and position biases are AdamW's (see parameter_groups).
    """
    return {
        row.name: row.shape[0] * row.shape[1]
        for row in tensors(config)
        if len(row.shape) == 2
        and row.copies == 1
        and not row.is_buffer
        and row.kind not in ("embed_tokens", "lm_head")
        and not row.name.endswith("position_bias")
    }
