"""Cache memory of one instance: a state of fixed size for each request, and blocks for what grows.

The report keeps the window and the tokens not yet compressed in a state of fixed size, and the compressed
entries in blocks of lcm(m, m′) tokens. Models without a window have no state and blocks of any size.

Source: V4 report, section 3.6.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workbench.accounting.paging import block_tokens
from workbench.chips.clusters import Cluster
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import check_fit, memory_rows
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.workload import Workload
from workbench.config import ModelConfig
from workbench.units import gib

# Tokens of a block where the model sets none; what vLLM and SGLang take for latent attention.
PLAIN_BLOCK_TOKENS = 64


@dataclass(frozen=True)
class Paging:
    """`slots` requests at once and `blocks` of `block_tokens` tokens for all of them together.

    is_reserved: a request takes the blocks of its whole answer when it is admitted; else it takes them as
    it grows, and the youngest request gives way (and is computed anew) when none is left.

    Raises:
        ValueError: no slot, no block, or blocks without tokens.
    """

    slots: int
    blocks: float
    block_tokens: int = 1
    is_reserved: bool = False

    def __post_init__(self) -> None:
        for name in ("slots", "blocks", "block_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Paging: {name} is {getattr(self, name)}; an instance needs 1 or more; use more chips, "
                    f"fewer bits or a smaller engine reserve"
                )

    def needed(self, tokens: float) -> int:
        """Blocks of a request of that many tokens."""
        return math.ceil(tokens / self.block_tokens)


UNLIMITED = Paging(slots=2**31, blocks=math.inf)


def paging_of(
    config: ModelConfig,
    cluster: Cluster,
    mapping: Mapping,
    engine: Engine,
    *,
    mean_tokens: float,
    longest_tokens: int,
    chunk_tokens: int = 8192,
    most_requests: int | None = None,
    precision: Precision = RELEASED,
    draft_tokens: int = 0,
    is_reserved: bool = False,
) -> Paging:
    """What is left beside the weights of one replica, cut into slots and blocks.

    mean_tokens, of a request when it ends half its answer, sets how many slots share the memory with how
    many blocks; `most_requests` caps the slots. Attention groups pool their memory: a request may use
    blocks of any, which real engines do not allow.

    Raises:
        ValueError: the weights do not fit, or no request of `longest_tokens` fits beside them.
    """
    room = cluster.chip.device().need("memory_bytes") * engine.memory_share.value
    size = block_tokens(config) if config.model_type == "deepseek_v4" else PLAIN_BLOCK_TOKENS
    far = 64 * size
    workload = Workload(
        phase="decode", context_tokens=np.array([far, 2 * far], dtype=np.float64), batch=1,
        draft_tokens=draft_tokens, accepted_length=1.0 if draft_tokens else None,
    )  # fmt: skip
    rows = memory_rows(config, workload, mapping, precision, engine_bytes=engine.reserve_bytes.value)
    prompt = Workload(phase="prefill", context_tokens=chunk_tokens)
    widest = [r for r in memory_rows(config, prompt, mapping, precision) if r.kind == "activations"]
    fixed = [r for r in rows if r.kind in ("weights", "engine")] + widest
    check_fit(
        fixed,
        room,
        f"one device of {cluster.chip.name}, of which the engine fills {engine.memory_share.value:.0%}",
    )
    cache = np.broadcast_to(sum(np.asarray(r.size_bytes) for r in rows if r.kind == "cache"), (2,))
    block_bytes = float(cache[1] - cache[0]) / 64
    state_bytes = max(float(2 * cache[0] - cache[1]), 0.0)
    free = (room - sum(float(np.max(r.size_bytes)) for r in fixed)) * mapping.dp
    slots = int(free / (state_bytes + block_bytes * math.ceil(mean_tokens / size)))
    slots = min(slots, most_requests) if most_requests else slots
    blocks = int((free - slots * state_bytes) / block_bytes)
    if slots < 1 or blocks < math.ceil(longest_tokens / size):
        raise ValueError(
            f"paging_of: {gib(free):.2f} GiB are free for caches, {slots} slots and {blocks} blocks of "
            f"{size} tokens; a request of {longest_tokens} tokens needs {math.ceil(longest_tokens / size)} "
            f"blocks; use more chips or fewer bits"
        )
    return Paging(slots, blocks, size, is_reserved)
