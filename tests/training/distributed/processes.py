"""Several gloo processes on this machine that run one function of the tests."""

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_processes(n: int, function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """What function(*args) returns on each of n processes; results travel as JSON."""
    name = uuid.uuid4().hex[:8]
    mp.spawn(_work, (n, function, folder, name, args), nprocs=n)
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(n)]


def _work(rank: int, n: int, function: Callable[..., Any], folder: Path, name: str, args: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{name}", rank=rank, world_size=n)
    result = json.dumps(function(*args))
    scratch = folder / f"{name}-{rank}.tmp"
    scratch.write_text(result)
    scratch.rename(folder / f"{name}-{rank}.json")
    # Nobody leaves while another may still talk to it. If one fails, mp.spawn ends the others.
    while not all((folder / f"{name}-{other}.json").is_file() for other in range(n)):
        time.sleep(0.01)
    os._exit(0)  # gloo's threads abort some interpreters that end in the ordinary way
