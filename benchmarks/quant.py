"""Fake quantisation of 4096 × 4096 fp32 numbers: each format, beside each package that has it.

    new      a fresh result, as every package gives one
    out      written to memory that is already there
    plain    as out, without torch.compile
    peer     the package as its documentation calls it, a fresh result
    compiled the same calls of the package under torch.compile

Figures in copies are multiples of a copy into memory that is already there. All of one format runs in turns,
ratios are taken within a turn, and low and high are the least and greatest of a turn. `differ` counts the
numbers that the package rounds to something else; why stands in `note`. `best` marks the fastest package of
those that differ in no more than a few ties, and of all where every one differs.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from benchmarks.peers.quantisers import NOT_INSTALLABLE, PEERS, Fake, Peer
from benchmarks.timing import seconds
from workbench.quant import FORMATS, fake_quantize

THREADS = 2
SIZE = 4096
TURNS, FEW_TURNS = 9, 3
SLOW_S = 0.1  # what takes longer runs in the few turns only
FEW_TIES = 1e-5  # of the numbers: a package that differs in no more does the same work

Times = dict[str, list[float]]


def run() -> list[dict[str, Any]]:
    """One row for each format and package that has it; `faster` is the package's time over ours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        rows = [row for name in FORMATS for row in _rows(name)]
    finally:
        torch.set_num_threads(threads)
    return rows + [
        {"format": "all", "peer": peer, "note": reason} for peer, reason in NOT_INSTALLABLE.items()
    ]


def _rows(name: str) -> list[dict[str, Any]]:
    torch._dynamo.reset()  # the packages' functions serve many formats, and torch counts what it compiles
    x = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    x = x.view(-1, 512) if name == "kv_v4" else x
    out = torch.empty_like(x)
    calls: dict[str, Callable[[], Any]] = {
        "copy": lambda: out.copy_(x),
        "new": lambda: fake_quantize(x, name, compiled=True),
        "out": lambda: fake_quantize(x, name, out=out, compiled=True),
        "plain": lambda: fake_quantize(x, name, out=out, compiled=False),
    }
    start = time.perf_counter()
    calls["new"]()
    ours = {"format": name, "first_s": time.perf_counter() - start}

    found, absent = [], []
    for peer in (peer for peer in PEERS if peer.format == name):
        try:
            fake = peer.prepare()
        except ImportError as error:
            absent.append({"format": name, "peer": peer.package, "note": f"not installed: {error}"})
            continue
        part = x[: max(1, round(len(x) * peer.share))]
        found.append((peer, int((fake(part) != fake_quantize(part, name)).sum())))  # 0 equals -0
        calls[peer.package] = lambda fake=fake, part=part: fake(part)
        if peer.share == 1 and (compiled := _compiled(fake, part)):
            calls[f"{peer.package} compiled"] = lambda fake=compiled, part=part: fake(part)

    times = in_turns(calls)
    ours |= {f"{way}_copies": _ratio(times[way], times["copy"])[0] for way in ("new", "out", "plain")}
    rows = [_row(ours, peer, differ, times) for peer, differ in found]
    if rows:
        min(rows, key=lambda row: (row["differ"] > FEW_TIES * x.numel(), row["peer_copies"]))["best"] = True
    return [_rounded(row) for row in (rows or [ours])] + absent


def _compiled(fake: Fake, x: Tensor) -> Fake | None:
    """The package's call under torch.compile; nothing where that fails or changes its numbers."""
    compiled: Fake = torch.compile(fake)
    try:
        return compiled if torch.equal(compiled(x), fake(x)) else None
    except TorchDynamoException:
        return None


def in_turns(calls: dict[str, Callable[[], Any]]) -> Times:
    """Seconds of each call in every turn. One call of each comes first and does not count."""
    first = {name: seconds(call) for name, call in calls.items()}
    times: Times = {name: [] for name in calls}
    for turn in range(TURNS):
        for name, call in calls.items():
            if turn < FEW_TURNS or first[name] < SLOW_S:
                times[name].append(seconds(call))
    return times


def _ratio(slow: list[float], fast: list[float], share: float = 1) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios within a turn, for turns that both ran in."""
    ratios = sorted(a / share / b for a, b in zip(slow, fast, strict=False))
    return median(ratios), ratios[0], ratios[-1]


def _row(ours: dict[str, Any], peer: Peer, differ: int, times: Times) -> dict[str, Any]:
    theirs, compiled = times[peer.package], times.get(f"{peer.package} compiled")
    row = ours | {"peer": f"{peer.package} {version(peer.package)}", "differ": differ}
    row["peer_copies"] = _ratio(theirs, times["copy"], peer.share)[0]
    for way in ("new", "out"):
        middle, low, high = _ratio(theirs, times[way], peer.share)
        row |= {f"faster_{way}": middle, f"{way}_low": low, f"{way}_high": high}
    if compiled:
        row["compiled_copies"] = _ratio(compiled, times["copy"])[0]
        row |= {f"than_compiled_{way}": _ratio(compiled, times[way])[0] for way in ("new", "out")}
    return row | ({"note": peer.differs} if differ else {})


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in row.items()}
