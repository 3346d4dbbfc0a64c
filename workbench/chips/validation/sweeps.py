"""Which sweeps of the serving table ran with draft tokens: the table itself does not say.

A sweep is a day's runs of one version of an engine on one system, prefill and decoding together; a script
starts all of them, with drafts or without. Where two sweeps of one version hold the same configuration, the
one that drafts is much the faster. So whole sweeps are told apart, by runs that the table lists twice: a bit
for dozens of rows, and no prediction has a say in it.

Source of the number of drafts: SemiAnalysisAI/InferenceX, benchmarks/dsr1_fp4_b200_trt_mtp.sh.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from workbench.chips.validation.text import Drafts

# Two runs of one configuration that differ by more than this are runs with and without drafts.
SAME_RUN = 1.35
PLAIN = Drafts()
_RUN = (
    "system", "backend", "precision", "mode", "isl", "osl", "concurrency", "tp_size", "attention_dp_size",
    "moe_tp_size", "moe_ep_size", "decode_tp_size", "decode_attention_dp_size", "decode_moe_tp_size",
    "decode_moe_ep_size", "decode_num_workers",
)  # fmt: skip

Key = tuple[str, ...]


def run_of(row: Mapping[str, str]) -> Key:
    """What makes two rows the same run, but for drafts and the engine's version."""
    return tuple(row.get(name, "") for name in _RUN)


def sweep_of(row: Mapping[str, str]) -> Key | None:
    """The sweep of a row, or None: pools of their own are tuned one by one, some with drafts."""
    version = re.sub(r"\.?post\d+$", "", row.get("backend_version", ""))
    day = row.get("measured", "")
    if row.get("mode") != "agg" or not version or not day:
        return None
    return (row.get("system", ""), row.get("backend", ""), version, day)


def drafting(timed: Iterable[tuple[Mapping[str, str], float]]) -> dict[Key, bool]:
    """Sweeps that certainly drafted (True) or did not (False), from rows with their times per token.

    A sweep that is faster than one of its version and slower than another is left out.
    """
    runs: dict[Key, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row, seconds in timed:
        if (sweep := sweep_of(row)) is not None:
            runs[(*run_of(row), sweep[2])][sweep].append(seconds)
    votes: dict[Key, set[bool]] = defaultdict(set)
    for times in runs.values():
        for slow, its in times.items():
            for fast, others in times.items():
                if min(its) > SAME_RUN * max(others):
                    votes[slow].add(False)
                    votes[fast].add(True)
    return {sweep: said.pop() for sweep, said in votes.items() if len(said) == 1}


def drafts_in(row: Mapping[str, str], drafted: Mapping[Key, bool]) -> Drafts | None:
    """Drafts of a row by its sweep: one with data-parallel attention, else three; None if not known."""
    sweep = sweep_of(row)
    if sweep is None or sweep not in drafted:
        return None
    if not drafted[sweep]:
        return PLAIN
    is_spread = float(row.get("attention_dp_size") or 1) > 1
    return Drafts(1 if is_spread else 3, None, "mtp")
