"""What Muon adds to a step: Newton-Schulz products for every matrix, spread over the ranks.

Ten iterations of three products each on a matrix of n rows and m ≥ n columns:

    gram = Y Yᵀ (n, m) · (m, n)     gram² (n, n) · (n, n)     polynomial · Y (n, n) · (n, m)

so 10 · (4 n² m + 2 n³) FLOPs a matrix and step, however many tokens the step has seen.

Report: sections 2.4 and 3.5.1 (whole matrices go to ranks; the padding of the busiest stays under a tenth).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.accounting.tensors import Tensor, tensors
from workbench.chips.catalog import Chip
from workbench.chips.collectives import Seconds
from workbench.chips.kernels import kernel_times
from workbench.chips.operations import Operation
from workbench.config import ModelConfig

ITERATIONS = 10
# What the report bounds the padding of its rank assignment by (section 3.5.1): the busiest over the mean.
MOST_PADDING = 1.1
_ADAMW = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class Matrices:
    """`count` matrices of one shape, n ≤ m. Experts lie on expert ranks, others on any rank of a stage."""

    n: int
    m: int
    count: int
    is_expert: bool

    @property
    def flop(self) -> float:
        """Of all of them, in one step."""
        return self.count * ITERATIONS * (4.0 * self.n**2 * self.m + 2.0 * self.n**3)


def muon_matrices(config: ModelConfig) -> list[Matrices]:
    """Every matrix that Muon updates; stacked output groups count apart."""
    found: Counter[tuple[int, int, bool]] = Counter()
    for tensor in tensors(config):
        if is_muon(tensor):
            parts = (config.o_groups or 1) if tensor.kind == "o_a_proj" else 1
            rows, columns = tensor.shape[0] // parts, tensor.shape[1]
            short, long = min(rows, columns), max(rows, columns)
            found[short, long, tensor.kind == "experts"] += tensor.copies * parts
    return [Matrices(n, m, count, is_expert) for (n, m, is_expert), count in found.items()]


def is_muon(tensor: Tensor) -> bool:
    """Matrices, but not the embedding, the head and the position biases."""
    if tensor.is_buffer or len(tensor.shape) < 2:
        return False
    return tensor.kind not in _ADAMW and not tensor.kind.endswith("position_bias")


def muon_flop(config: ModelConfig) -> float:
    """FLOPs of all Newton-Schulz iterations of one step, each matrix once."""
    return sum(group.flop for group in muon_matrices(config))


def muon_s(config: ModelConfig, chip: Chip, devices: int) -> Seconds:
    """Seconds that the busiest device spends on them, BF16 products in batches of equal shapes.

    Whole matrices go to devices: a device has at least one of them, so that ever more devices do not help.

    Raises:
        ValueError: fewer than one device.
    """
    if devices < 1:
        raise ValueError(f"muon_s: devices is {devices}; somebody must do it; use 1 or more")
    groups = muon_matrices(config)
    ends = []
    for end in ("lower_s", "expected_s", "upper_s"):
        experts = sum(_group_s(g, math.ceil(g.count / devices), chip, end) for g in groups if g.is_expert)
        alone = [(_group_s(g, 1, chip, end), g.count) for g in groups if not g.is_expert]
        dense = max(sum(s * count for s, count in alone) / devices, max((s for s, _ in alone), default=0.0))
        ends.append(experts + dense * (MOST_PADDING if end == "upper_s" else 1.0))
    return Seconds(*ends)


def _group_s(group: Matrices, count: int, chip: Chip, end: str) -> float:
    times = kernel_times(list(_products(group, count)), chip)
    return float(ITERATIONS * getattr(times, end).sum())


def _products(group: Matrices, count: int) -> Iterator[Operation]:
    n, m = float(group.n), float(group.m)
    for name, columns, inner in (("gram", n, m), ("gram squared", n, n), ("polynomial", m, n)):
        yield Operation(
            name=name, kind="gemm", layer_type="optimiser", group=name, batch=float(count), m=n, n=columns,
            k=inner, weight="bf16", activation="bf16", output="bf16", flop=2.0 * count * n * columns * inner,
            weight_bytes=2.0 * count * columns * inner, read_bytes=2.0 * count * n * inner,
            write_bytes=2.0 * count * n * columns,
        )  # fmt: skip


def muon_rows(config: ModelConfig) -> list[dict[str, Any]]:
    """Rows {"shape", "matrices", "flop", "is_expert"}, the costliest first."""
    return [
        {"shape": f"{g.n} × {g.m}", "matrices": g.count, "flop": g.flop, "is_expert": g.is_expert}
        for g in sorted(muon_matrices(config), key=lambda g: -g.flop)
    ]
