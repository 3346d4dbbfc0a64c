"""Joining the processes that torchrun has started; alone without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.distributed as dist

from workbench.training.distributed.process_ranks import ProcessRanks
from workbench.training.ranks import ALONE, Ranks

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
"""What carries messages between devices of a kind. npu is Huawei's Ascend, by the package torch_npu."""


@contextmanager
def joined(
    device: str = "cpu", *, n_context: int = 1, n_expert: int = 1
) -> Iterator[tuple[Ranks, torch.device]]:
    """This process's ranks and device: those of torchrun's processes, or alone if it did not start them.

    Args:
        device: "cpu", "cuda" or "npu"; every process of a machine takes one of its own by number.
        n_context, n_expert: as `ProcessRanks`.

    Raises:
        ValueError: an unknown or absent device, or processes that do not divide.
    """
    if device not in BACKENDS:
        raise ValueError(f"joined: device {device!r} is unknown; choose one of {list(BACKENDS)}")
    if device == "npu" and find_spec("torch_npu"):
        import_module("torch_npu")  # it adds torch.npu
    module = getattr(torch, device, None)
    if module is None or not module.is_available():
        raise ValueError(
            f"joined: torch {torch.__version__} sees no {device} device here; needs a driver and a build of "
            f"torch for it; use --device cpu"
        )
    number = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device(device) if device == "cpu" else torch.device(device, number)
    if "WORLD_SIZE" not in os.environ:
        if n_context * n_expert != 1:
            raise ValueError(
                f"joined: got n_context={n_context} and n_expert={n_expert} in one process; needs as many "
                f"processes; start with torchrun --nproc-per-node N -m workbench train ..."
            )
        yield ALONE, own
        return
    if device != "cpu":
        getattr(torch, device).set_device(own)
    dist.init_process_group(BACKENDS[device])
    try:
        yield ProcessRanks(device, n_context=n_context, n_expert=n_expert), own
    finally:
        dist.destroy_process_group()
