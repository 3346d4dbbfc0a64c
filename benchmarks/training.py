"""A whole training step beside transformers' class with AdamW, and two processes beside one.

Preset mini without its MTP block, fp32. The first rows use one thread; those of processes give each process
one thread and the same rows in all, so that two processes share the work of one.
"""

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

import torch
import transformers

from benchmarks.timing import cores, seconds, side_by_side
from workbench.model import Transformer
from workbench.training.distributed.launch import joined
from workbench.training.distributed.process_ranks import ProcessRanks
from workbench.training.distributed.sharding import shard
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.mini_study import mini
from workbench.training.parameter_groups import make_optimizers
from workbench.training.schedules import BatchRamp, LearningRate

ROWS, ROW_TOKENS, STEPS = 16, 256, 4
OPTIMISERS = {
    "Muon and AdamW": lambda model: make_optimizers(model, 1e-3),
    "Muon in BF16 and AdamW": lambda model: make_optimizers(model, 1e-3, ns_dtype=torch.bfloat16),
    "AdamW": lambda model: [torch.optim.AdamW(model.parameters(), lr=1e-3)],
}
WAYS = {"": (1, 1), ", experts shared": (1, 2), ", rows cut in two": (2, 1)}


def loader() -> Loader:
    """Random documents as long as a row: nothing to pack, nothing to learn."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(mini().vocab_size, (64, ROW_TOKENS), generator=generator)
    return Loader(ids.tolist(), ROW_TOKENS, seed=0)


def recipe(steps: int) -> Recipe:
    return Recipe(LearningRate(1e-3, 1e-3, 0, 0, steps), BatchRamp(ROWS, ROWS, 0))


def network() -> Transformer:
    return Transformer(mini(), generator=torch.Generator().manual_seed(0))


def run() -> list[dict[str, Any]]:
    """Tokens a second and ratios: transformers' time over ours, one process's time over two processes'."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [_beside_transformers(name) for name in OPTIMISERS]
    finally:
        torch.set_num_threads(threads)
    one = _timed(1, "")
    for name in WAYS:
        two = _timed(2, name)
        rows.append(
            {
                "what": f"two processes beside one{name} ({cores()} cores)",
                "ours_s": two,
                "peer_s": one,
                "ratio": one / two,
                "tokens_per_s": ROWS * ROW_TOKENS / two,
            }
        )
    return rows


def _beside_transformers(name: str) -> dict[str, Any]:
    """The loop with its routing rules, clipping and optimisers, beside a plain step with AdamW."""
    config, batches = mini(), loader()
    model = network()
    values = {k: v for k, v in config.to_dict().items() if k != "model_type"}
    peer_config = transformers.DeepseekV4Config(**values, attn_implementation="eager")
    peer = transformers.DeepseekV4ForCausalLM(peer_config)
    peer.load_state_dict(model.state_dict())
    theirs = torch.optim.AdamW(peer.parameters(), lr=1e-3)
    steps = train(model, batches, recipe(99), optimizers=OPTIMISERS[name](model))

    def peer_step() -> None:
        for ids in batches.peek(ROWS).input_ids.split(8):
            (peer(ids, labels=ids, use_cache=False).loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        theirs.step()
        theirs.zero_grad()

    found = side_by_side(lambda: next(steps), peer_step, repeats=STEPS)
    return {
        "what": f"step of {ROWS} x {ROW_TOKENS} with {name} beside transformers with AdamW",
        **found,
        "tokens_per_s": ROWS * ROW_TOKENS / found["ours_s"],
    }


def _timed(processes: int, way: str) -> float:
    """Median seconds of a step, as the processes' first one sees it."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(many if processes > 1 else []), "-m", "benchmarks.training", way]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def _work(way: str) -> None:
    """What one of several processes does; the first prints its seconds a step."""
    torch.set_num_threads(1)
    n_context, n_expert = WAYS[way] if "WORLD_SIZE" in os.environ else (1, 1)
    with joined(n_context=n_context, n_expert=n_expert) as (ranks, _):
        model = network()
        if isinstance(ranks, ProcessRanks):
            shard(model, ranks)
        steps = train(model, loader(), recipe(STEPS + 1), ranks=ranks)
        next(steps)
        found = median(seconds(lambda: next(steps)) for _ in range(STEPS))
        if ranks.is_first:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _work(sys.argv[1] if len(sys.argv) > 1 else "")
