"""Rows of a measured kernel table as operations, so that the simulators can be held against them.

The table's columns are those of data/chips/kernels_nvidia.csv: measurements of aiconfigurator 0.12.0
(Apache-2.0), re-tabulated. Each row repeats one kernel, or one module of a layer, on one GPU.

How its expert rows were made matters: the collector builds router logits, and the module's own router then
chooses. `routed` follows it. DeepSeek-V3's router admits four of eight groups; with logits that mark one
expert in every group, half of each token's choices go to ties, which fall to the lowest expert: rank 0,
the one measured, gets 5/8 of all choices at 8 ranks in place of 1/8.

Source: collector/helper.py of aiconfigurator (balanced and power-law logits), read for the rules it follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from workbench.chips.catalog import load_chip
from workbench.chips.kernels.constants import Calibration
from workbench.chips.kernels.simulate import kernel_times
from workbench.chips.operations import Operation, operations
from workbench.chips.operations.operation import BYTES
from workbench.chips.workload import Workload
from workbench.config import CSA, HCA, ModelConfig, load_config

Row = Mapping[str, str]
# Formats of weights and activations by the table's name of the data type.
FORMATS = {
    "bfloat16": ("bf16", "bf16"),
    "float16": ("fp16", "fp16"),
    "int8": ("int8", "int8"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8", "fp8"),
    "nvfp4": ("fp4", "fp4"),
    "w4a8_mxfp4_mxfp8": ("fp4", "fp8"),
}
MODULES = {
    "csa_decode_module": CSA,
    "csa_prefill_module": CSA,
    "hca_decode_module": HCA,
    "hca_prefill_module": HCA,
}
KERNELS = ("gemm", "moe_experts", "mhc_pre (2 sites)", "mhc_post (2 sites)", *MODULES)
# GPUs that the engine had no compressed-attention kernel for: 0.66 ms a sequence whatever the context.
NO_SPARSE_ATTENTION = ("rtx-pro-6000",)
DRAWS = 8  # of the power law, averaged
MOST_TOKENS = 2**22  # of an expert row: each is routed one by one


def excluded(row: Row) -> str | None:
    """Why a row says nothing about a chip that these simulators could predict; None if it does."""
    if row["op"] not in KERNELS:
        return "not a kernel of one chip: a collective, or expert dispatch and combine"
    if "_torch_mhc" in row["kernel"]:
        return "runs as separate PyTorch operations, for want of a kernel on this GPU"
    if row["op"] in MODULES and load_chip(row["gpu"]).key in NO_SPARSE_ATTENTION:
        return "no attention kernel for this GPU: a reference loop, 10 to 200 times above bytes and FLOPs"
    return None


def operations_of(row: Row) -> list[Operation]:
    """The operations that a row of the table timed together.

    Raises:
        ValueError: a kernel that is not one of KERNELS.
    """
    op = row["op"]
    if op == "gemm":
        return [_gemm(row)]
    if op == "moe_experts":
        return list(_experts(row))
    if op in MODULES:
        return _attention(row)
    if op.startswith("mhc_"):
        return _mixing(row)
    raise ValueError(
        f"operations_of: op {op!r} is not a kernel of one chip; needs one of {KERNELS}; leave the row out"
    )


class Rows:
    """Measured rows with their operations, laid out once; `predict` may be asked again and again."""

    def __init__(self, rows: Sequence[Row], lists: Sequence[list[Operation]] | None = None) -> None:
        self.rows = list(rows)
        self.chips = {name: load_chip(name) for name in dict.fromkeys(row["gpu"] for row in rows)}
        self.lists = [
            # Each row is a run of its own: nothing fuses across rows.
            [op.replace(group=f"{i} {op.group}") for op in found]
            for i, found in enumerate([operations_of(row) for row in self.rows] if lists is None else lists)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, other: Rows, mask: npt.NDArray[np.bool_]) -> None:
        """Become some of the rows of another, as they are laid out. Shapes: mask (r,)."""
        self.chips = other.chips
        self.rows = [row for row, is_kept in zip(other.rows, mask, strict=True) if is_kept]
        self.lists = [ops for ops, is_kept in zip(other.lists, mask, strict=True) if is_kept]

    def predict(self, calibration: Calibration | None = None) -> npt.NDArray[np.float64]:
        """Lower, expected and upper seconds. Shapes: -> (3, r)."""
        out = np.empty((3, len(self)))
        gpus = np.array([row["gpu"] for row in self.rows])
        for gpu in dict.fromkeys(gpus):
            at = np.flatnonzero(gpus == gpu)
            flat = [op for i in at for op in self.lists[i]]
            starts = np.cumsum([0, *(len(self.lists[i]) for i in at[:-1])])
            times = kernel_times(flat, self.chips[gpu], calibration=calibration, is_warm=True)
            count = np.array([float(op.count) for op in flat])
            for row, seconds in zip(out, (times.lower_s, times.expected_s, times.upper_s), strict=True):
                row[at] = np.add.reduceat(seconds * count, starts)
        return out


def _gemm(row: Row) -> Operation:
    weight, activation = _formats(row)
    m, n, k = (float(row[name]) for name in ("batch_or_tokens", "n", "k"))
    return product("gemm", 1.0, m, n, k, weight, activation)


def _formats(row: Row) -> tuple[str, str]:
    if row["dtype"] not in FORMATS:
        raise ValueError(
            f"operations_of: dtype {row['dtype']!r} is unknown; needs one of {list(FORMATS)}; leave the row "
            f"out"
        )
    return FORMATS[row["dtype"]]


def product(
    name: str, groups: float, m: float, n: float, k: float, weight: str, activation: str
) -> Operation:
    """A product from its sizes; one group is a dense one."""
    return Operation(
        name=name, kind="gemm" if name == "gemm" else "grouped_gemm", layer_type="", group=name, batch=groups,
        m=m, n=n, k=k, weight=weight, activation=activation, flop=2 * groups * m * n * k,
        weight_bytes=groups * n * k * BYTES[weight] * (1 + (weight == "fp4") / 16),
        read_bytes=groups * m * k * BYTES[activation], write_bytes=2 * groups * m * n,
    )  # fmt: skip


def norm(m: float, n: float) -> Operation:
    """A layer norm of m rows of n channels in 16 bits, as a kernel of its own."""
    return Operation(
        name="LayerNorm", kind="elementwise", layer_type="", group="norm",
        read_bytes=2 * m * n, write_bytes=2 * m * n, vector_flop=8 * m * n,
    )  # fmt: skip


def _attention(row: Row) -> list[Operation]:
    """One attention module, without the norm before it and the residual after it."""
    config = load_config(row["model_or_shape"].lower())
    tokens, past = float(row["batch_or_tokens"]), float(row["seq_or_bytes"])
    if "decode" in row["op"]:
        workload = Workload(phase="decode", batch=tokens, context_tokens=past)
    else:
        workload = Workload(phase="prefill", context_tokens=tokens + past, new_tokens=tokens)
    return list(_module(config, workload, MODULES[row["op"]]))


def _module(config: ModelConfig, workload: Workload, kind: str) -> Iterator[Operation]:
    for op in operations(config, workload):
        if op.layer_type == kind and op.part == "trunk" and not op.group.startswith("attn_hc"):
            yield op.replace(count=1)


def _mixing(row: Row) -> list[Operation]:
    """mHC before or after both modules of a layer."""
    hidden = row["model_or_shape"].split(",")[0].split()[-1]
    config = load_config({"4096": "deepseek-v4-flash", "7168": "deepseek-v4-pro"}[hidden])
    site = f"attn_hc {'pre' if 'pre' in row['op'] else 'post'}"
    workload = Workload(phase="prefill", context_tokens=float(row["batch_or_tokens"]))
    first = [op for op in operations(config, workload) if op.group == site and "norm" not in op.name]
    layer = first[0].layer_type
    return [op.replace(count=2) for op in first if op.layer_type == layer]


def _experts(row: Row) -> Iterator[Operation]:
    config = load_config(row["model_or_shape"].lower())
    assert config.n_routed_experts and config.num_experts_per_tok and config.moe_intermediate_size
    weight, activation = _formats(row)
    tokens, ranks, tp = (int(float(row[name])) for name in ("batch_or_tokens", "ep_or_world", "tp"))
    d, width = config.hidden_size, config.moe_intermediate_size / tp
    rows, active = routed(
        tokens, config.n_routed_experts, config.num_experts_per_tok, ranks, row["distribution"],
        (config.n_group or 1, config.topk_group or 1),
    )  # fmt: skip
    # Triton's kernels move every choice of every token, whichever rank its expert is on.
    moved = float(tokens * config.num_experts_per_tok) if "triton" in row["kernel"] else rows
    yield _vector("quantise", 2.0 * tokens * d, BYTES[activation] * tokens * d, 2.0 * tokens * d)
    yield product("experts gate_up", active, rows / active, 2 * width, d, weight, activation)
    yield _vector("swiglu", 4.0 * moved * width, BYTES[activation] * moved * width, 8.0 * moved * width)
    yield product("experts down", active, rows / active, d, width, weight, activation)
    yield _vector("combine", 2.0 * moved * d, 2.0 * tokens * d, 2.0 * moved * d)


def _vector(name: str, read: float, write: float, flop: float) -> Operation:
    return Operation(
        name=name, kind="elementwise", layer_type="", group=name, read_bytes=read, write_bytes=write,
        vector_flop=flop,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def routed(
    tokens: int, experts: int, topk: int, ranks: int, distribution: str, groups: tuple[int, int] = (1, 1)
) -> tuple[float, float]:
    """Rows that rank 0 computes, and its experts with at least one: as the collector's logits lead to.

    groups: (number of groups, groups a token may choose from) of the router; (1, 1) has none.

    Raises:
        ValueError: a distribution that the collector does not have, or more tokens than it could hold.
    """
    if not 0 < tokens <= MOST_TOKENS or not 0 < ranks <= experts:
        raise ValueError(
            f"routed: got {tokens} tokens and {ranks} ranks; needs 1 to {MOST_TOKENS} tokens and at most "
            f"{experts} ranks, one an expert; leave the row out"
        )
    if distribution == "balanced":
        draws = [_balanced(tokens, experts, topk)]
    elif distribution.startswith("power_law_"):
        alpha = float(distribution.removeprefix("power_law_"))
        rng = np.random.default_rng(0)
        draws = [_power_law(tokens, experts, topk, ranks, alpha, rng) for _ in range(DRAWS)]
    else:
        raise ValueError(
            f"routed: distribution {distribution!r} is unknown; it must be balanced or power_law_<exponent>; "
            f"leave the row out"
        )
    local = [_chosen(marks, topk, groups)[: experts // ranks] for marks in draws]
    return float(np.mean([c.sum() for c in local])) or 1.0, float(
        np.mean([(c > 0).sum() for c in local])
    ) or 1.0


def _balanced(tokens: int, experts: int, topk: int) -> npt.NDArray[np.bool_]:
    """Which experts each token is given: one every `stride`, shifted by one from token to token."""
    stride = math.ceil(experts / topk)
    step = 1.0 if tokens >= stride else stride / tokens
    at = (np.arange(tokens)[:, None] * step + np.arange(topk)[None] * stride) % experts
    return _marks(at.astype(np.intp), experts)


def _power_law(
    tokens: int, experts: int, topk: int, ranks: int, alpha: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Experts' loads from a power law; the most loaded rank's experts stand first."""
    low, high = (1.0, 0.8 * tokens) if tokens * topk > experts else (0.01, 2.0)
    power = 1.0 - alpha
    load = ((high**power - low**power) * rng.random(experts) + low**power) ** (1 / power)
    share = np.round(load / load.sum() * tokens * topk).astype(np.intp)
    order = np.argsort(-share)
    missing = tokens * topk - share.sum()
    for i in range(abs(missing)):
        share[order[i % experts]] += np.sign(missing)
    share = np.clip(share, 0, None).reshape(ranks, -1)
    heaviest = int(np.argmax(share.sum(axis=1)))
    share[[0, heaviest]] = share[[heaviest, 0]]
    share = share.ravel()
    assigned = np.repeat(np.argsort(-share), np.sort(share)[::-1])[: tokens * topk]
    assigned = np.resize(assigned, tokens * topk)
    return _marks(assigned.reshape(topk, tokens).T, experts)


def _marks(at: npt.NDArray[np.intp], experts: int) -> npt.NDArray[np.bool_]:
    marks = np.zeros((len(at), experts), dtype=bool)
    np.put_along_axis(marks, at, True, axis=1)
    return marks


def _chosen(marks: npt.NDArray[np.bool_], topk: int, groups: tuple[int, int]) -> npt.NDArray[np.intp]:
    """Tokens of each expert once the router has chosen: marked ones first, ties to the lowest."""
    if groups[0] == 1:
        # Where a token has all its marks there is no tie to break.
        is_full = marks.sum(axis=1) == topk
        whole, marks = marks[is_full].sum(axis=0), marks[~is_full]
    else:
        whole = np.zeros(marks.shape[1], dtype=np.intp)
    score = marks.astype(np.float32)
    if groups[0] > 1:
        by_group = score.reshape(len(score), groups[0], -1)
        best = np.sort(by_group, axis=2)[:, :, -2:].sum(axis=2)
        kept = np.argsort(-best, axis=1, kind="stable")[:, : groups[1]]
        allowed = np.zeros_like(best, dtype=bool)
        np.put_along_axis(allowed, kept, True, axis=1)
        score = np.where(allowed[:, :, None], by_group, -1.0).reshape(score.shape)
    chosen = np.argsort(-score, axis=1, kind="stable")[:, :topk]
    return np.asarray(whole + np.bincount(chosen.ravel(), minlength=marks.shape[1]))
