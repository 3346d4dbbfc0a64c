"""Parallel sizes of serving points as a layout, where the columns of the table can be taken at their word.

The table gathers the exports of several tools, which do not fill its columns alike. Three habits are seen
where one run is listed twice, and are read as what they mean:

    n² ranks of which n share a product of the experts    n ranks; the exporter multiplied TP by EP
    experts cut finer than a block of scales              experts spread over those ranks instead
    the ranks of an instance, and nothing else            the run's other listing, if there is one

What then is still open stays open: a pool of decoding instances whose number no listing gives could hold its
users in batches that differ by a factor of eight, and a count of GPUs is no layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from workbench.chips.validation.rows import Unpredictable
from workbench.config import ModelConfig

SIZES = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
# What tells one run of a separate decoding pool from another.
_RUN = ("system", "backend", "precision", "measured", "isl", "osl", "concurrency")
# Channels that share a scale in the released FP8 weights: no engine cuts an expert finer.
SCALE_BLOCK = 128
# Most devices that share one product of an attention layer in any engine seen.
MOST_TP = 16


@dataclass(frozen=True)
class ServingLayout:
    """Degrees of one instance, and how many instances decode."""

    tp: int
    dp: int
    moe_tp: int
    ep: int
    instances: float = 1.0


Full = dict[tuple[str, ...], ServingLayout]


def layout_of_point(row: dict[str, str], config: ModelConfig, full: Full) -> ServingLayout:
    """The layout of a point's (decoding) instance.

    full: see `listed_in_full`.

    Raises:
        Unpredictable: no size is given, or the sizes contradict each other.
    """
    is_split = row.get("mode", "agg") != "agg"
    prefix = "decode_" if is_split else ""
    if not row.get(f"{prefix}tp_size"):
        raise Unpredictable("the parallel sizes are not stated")
    tp, dp, moe_tp, ep = (_count(row, prefix + name) for name in SIZES)
    if moe_tp == ep > 1 and tp * dp == ep * ep:
        tp, dp, moe_tp = min(tp, ep), min(dp, ep), 1
    if config.n_routed_experts and (config.moe_intermediate_size or 0) / moe_tp < SCALE_BLOCK:
        if tp == moe_tp and not is_split:
            raise Unpredictable(f"{tp} devices as one tensor-parallel group: prefill and decoding together")
        ep, moe_tp = ep * moe_tp, 1
    if tp > MOST_TP and config.num_attention_heads % tp:
        raise Unpredictable(f"{tp} devices as one tensor-parallel group: prefill and decoding together")
    workers = row.get("decode_num_workers", "")
    if is_split and not workers:
        if _run(row, tp * dp) not in full:
            raise Unpredictable("neither the number of decoding instances nor their drafts are stated")
        return full[_run(row, tp * dp)]
    if tp * dp != moe_tp * ep:
        raise Unpredictable(
            f"parallel sizes contradict each other: attention {tp} × {dp}, experts {moe_tp} × {ep}"
        )
    return ServingLayout(tp, dp, moe_tp, ep, float(workers or 1))


def listed_in_full(rows: Iterable[dict[str, str]]) -> Full:
    """Layouts of the runs with separate pools that state everything, by what the other listings repeat."""
    found: dict[tuple[str, ...], set[ServingLayout]] = defaultdict(set)
    for row in rows:
        if not row.get("decode_num_workers") or not row.get("decode_tp_size"):
            continue
        try:
            tp, dp, moe_tp, ep = (_count(row, f"decode_{name}") for name in SIZES)
            layout = ServingLayout(tp, dp, moe_tp, ep, float(row["decode_num_workers"]))
        except (ValueError, OverflowError):
            continue  # no numbers: of no help to other listings; the row's own result says so
        if tp * dp == moe_tp * ep:
            found[_run(row, tp * dp)].add(layout)
    return {run: layouts.pop() for run, layouts in found.items() if len(layouts) == 1}


def _run(row: dict[str, str], devices: int) -> tuple[str, ...]:
    return (*(row.get(name, "") for name in _RUN), str(devices))


def _count(row: dict[str, Any], name: str) -> int:
    return int(float(row.get(name) or 1))
