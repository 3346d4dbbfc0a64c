"""V4 beside transformers' class at equal weights: preset mini, fp32, two threads.

Then what only ours reaches: how prefill time grows up to 64k tokens, and 128k tokens at once.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from torch import Tensor

import workbench as wb
from benchmarks.timing import seconds, side_by_side
from workbench.accounting import flop_per_prefill
from workbench.model import Transformer, observe
from workbench.units import GB

THREADS = 2
LONGEST = 131_072
CONFIG = wb.load_config("mini").replace(max_position_embeddings=LONGEST)


def ours() -> Transformer:
    return Transformer(CONFIG, generator=torch.Generator().manual_seed(0)).eval()


def theirs() -> torch.nn.Module:
    values = {k: v for k, v in CONFIG.to_dict().items() if k != "model_type"}
    config = transformers.DeepseekV4Config(**values, attn_implementation="eager")
    return transformers.DeepseekV4ForCausalLM(config).eval()


def tokens(rows: int, n: int) -> Tensor:
    return torch.randint(CONFIG.vocab_size, (rows, n), generator=torch.Generator().manual_seed(n))


def peak_flop_per_s() -> float:
    """The best rate of a square matrix product, of sizes that fit the processor's cache."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(seconds(lambda: a @ a) for _ in range(30))


def peak_gb(which: str, n: int) -> float:
    """Memory that reading n tokens adds to a fresh process."""
    command = [sys.executable, "-m", "benchmarks.model_v4", which, str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run() -> list[dict[str, Any]]:
    """One row a measurement; ratio is transformers' number over ours."""
    transformers.logging.set_verbosity_error()
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [*_prefill(), _memory(), _train(), *_decode(), *_growth()]
    finally:
        torch.set_num_threads(threads)


def _pair() -> tuple[Transformer, torch.nn.Module]:
    model, peer = ours(), theirs()
    trunk = {name: t for name, t in model.state_dict().items() if not name.startswith("mtp.")}
    peer.load_state_dict(trunk)
    _check_equal(model, peer)
    return model, peer


@torch.no_grad()
def _check_equal(model: Transformer, peer: torch.nn.Module) -> None:
    """Both give the same logits before anything is timed.

    In fp32 they differ by some 2e-6. A choice between two entries that tie within rounding would show from
    one token on; products of fewer bits everywhere. The error names both, so that one knows which it was.
    """
    ids = tokens(1, 300)
    error = (model(ids) - peer(ids).logits).abs().amax(dim=-1)[0]
    off = (error >= 1e-5).nonzero().flatten().tolist()
    if not off:
        return
    gaps = []
    for layer in observe(model, ids).layers.values():
        if layer.attention.scores is not None:
            best = layer.attention.scores[0].topk(CONFIG.index_topk + 1).values
            gaps.append((best[:, -2] - best[:, -1]).nan_to_num(torch.inf))
    gap, token = torch.stack(gaps).amin(dim=0).min(dim=0)
    raise AssertionError(
        f"model_v4: logits differ from transformers' by {float(error.max()):.1e}, by more than 1e-5 in "
        f"{len(off)} of 300 tokens, from token {off[0]} on; the closest choice between two entries is "
        f"{float(gap):.1e}, at token {int(token)}; products of fp32 matrices are off by "
        f"{_product_error():.1e} of their size (3e-7 where they keep all 24 bits)"
    )


def _product_error() -> float:
    a, b = torch.randn(2, 512, 512)
    exact = a.double() @ b.double()
    return float((a @ b - exact).norm() / exact.norm())


@torch.no_grad()
def _prefill() -> list[dict[str, Any]]:
    model, peer = _pair()
    rows, peak = [], peak_flop_per_s()
    for n, repeats in ((512, 15), (2048, 5)):
        ids = tokens(1, n)
        found = side_by_side(lambda ids=ids: model(ids), lambda ids=ids: peer(ids, use_cache=False), repeats)
        rows.append({"what": f"prefill {n}", **found, "of_matmul_peak": _share(n, found["ours_s"], peak)})

    # Theirs takes a minute: once, between several of ours.
    ids = tokens(1, 8192)
    mine = [seconds(lambda: model(ids)) for _ in range(4)]
    other = seconds(lambda: peer(ids, use_cache=False))
    mine = [*mine[1:], *(seconds(lambda: model(ids)) for _ in range(3))]
    rows.append(
        {
            "what": "prefill 8192",
            "ours_s": median(mine),
            "peer_s": other,
            "ratio": other / median(mine),
            "ratio_low": other / max(mine),
            "ratio_high": other / min(mine),
            "of_matmul_peak": _share(8192, median(mine), peak),
        }
    )
    return rows


def _share(n: int, time_s: float, peak: float) -> float:
    """The part of the machine's matrix-product rate that reading n tokens reaches."""
    return float(flop_per_prefill(CONFIG, n)) / time_s / peak


def _memory() -> dict[str, Any]:
    mine, other = peak_gb("ours", 8192), peak_gb("theirs", 8192)
    return {"what": "prefill 8192, memory", "ours_gb": mine, "peer_gb": other, "ratio": other / mine}


def _train() -> dict[str, Any]:
    model, peer = _pair()
    ids = tokens(8, 256)

    def step(loss: Callable[[], Tensor], network: torch.nn.Module) -> None:
        network.zero_grad()
        loss().backward()

    found = side_by_side(
        lambda: step(lambda: model.loss(ids), model),
        lambda: step(lambda: peer(ids, labels=ids, use_cache=False).loss, peer),
    )
    return {"what": "training step 8 x 256", **found}


@torch.no_grad()
def _decode() -> list[dict[str, Any]]:
    model, peer = _pair()
    rows: list[dict[str, Any]] = []
    one = tokens(1, 1)
    for n in (512, 8192):
        ids = tokens(1, n)
        cache, past = model.new_cache(1, n + 400), transformers.DynamicCache(config=peer.config)
        for piece in ids.split(256, dim=1):
            model(piece, cache=cache)
            peer(piece, past_key_values=past, use_cache=True)

        def mine(cache: Any = cache) -> None:
            for _ in range(8):
                model(one, cache=cache)

        def other(past: Any = past) -> None:
            for _ in range(8):
                peer(one, past_key_values=past, use_cache=True)

        found = side_by_side(mine, other, repeats=15)
        for key in ("ours_s", "peer_s"):
            found[key] /= 8
        rows.append({"what": f"decode, a token at {n}", **found})
    return rows


@torch.no_grad()
def _growth() -> list[dict[str, Any]]:
    model, rows = ours(), []
    peak, times = peak_flop_per_s(), {}
    for n, repeats in ((8192, 5), (65_536, 3)):
        ids = tokens(1, n)
        times[n] = median(seconds(lambda ids=ids: _read(model, ids)) for _ in range(repeats))
        share = _share(n, times[n], peak)
        rows.append({"what": f"read {n} (no logits)", "ours_s": times[n], "of_matmul_peak": share})
    exponent = math.log(times[65_536] / times[8192]) / math.log(8)
    rows.append({"what": "growth exponent 8k to 64k", "exponent": exponent})
    flop = {n: float(flop_per_prefill(CONFIG, n)) for n in times}
    rows.append(
        {
            "what": "growth exponent of the FLOPs",
            "exponent": math.log(flop[65_536] / flop[8192]) / math.log(8),
        }
    )
    rows += _where_time_goes(model, tokens(1, 8192))
    rows.append({"what": f"read {LONGEST}, memory", "ours_gb": peak_gb("read", LONGEST)})
    return rows


def _read(model: Transformer, ids: Tensor) -> Tensor:
    """Read a prompt into a cache and give the logits after its last token, as serving does."""
    cache = model.new_cache(*ids.shape)
    for _, streams in model.read(ids, [ids.shape[1]], cache):
        last = streams[:, -1:]
    return model.lm_head(model.model.collapse(last))


PARTS = {
    "matrix products": {"mm", "bmm", "addmm", "baddbmm"},
    "moving numbers": {"cat", "copy_", "index_select", "index_add", "index_copy_", "gather", "scatter_add_"},
    "softmax and top-k": {"_softmax", "topk", "scatter_"},
}


def _where_time_goes(model: Transformer, ids: Tensor) -> list[dict[str, Any]]:
    """Shares of the time of reading: matrix products, and what eats the rest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        spent = seconds(lambda: _read(model, ids))
    times = {e.key.removeprefix("aten::"): e.self_cpu_time_total / 1e6 for e in profile.key_averages()}
    named = {part: sum(times.pop(name, 0) for name in names) for part, names in PARTS.items()}
    shares = {**named, "other tensor operations": sum(times.values())}
    shares["Python between them"] = max(spent - sum(shares.values()), 0)
    return [{"what": f"read 8192: {part}", "share": time / spent} for part, time in shares.items()]


def _status_gb(field: str) -> float:
    """A memory figure that Linux keeps of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1]) * 1024 / GB
    raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only")


def _measure_memory(which: str, n: int) -> float:
    """GB by which this process grows while it reads n tokens."""
    torch.set_num_threads(THREADS)
    ids, network = tokens(1, n), theirs() if which == "theirs" else ours()
    before = _status_gb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and building
    with torch.no_grad():
        if which == "read":
            _read(network, ids)
        elif which == "ours":
            network(ids)
        else:
            network(ids, use_cache=False)
    return _status_gb("VmHWM") - before


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    print(_measure_memory(sys.argv[1], int(sys.argv[2])))
