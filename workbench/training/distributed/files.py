"""Tensors that several processes hold in parts, in safetensors files: one a process, for any number to read.

torch.distributed.checkpoint plans who writes and reads which part. Its own format keeps the plan in a
pickle, which can run code when it is read; safetensors headers hold the same plan as text.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


def write_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write tensors of a run into a folder; every process calls this. Whole tensors are written once."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

    save(
        {name: tensor.detach() for name, tensor in tensors.items()},
        storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
    )


def read_tensors(folder: Path, place: Callable[[str, torch.Size, torch.dtype], Tensor]) -> dict[str, Tensor]:
    """All tensors of a folder, however many processes wrote it.

    Args:
        place: from name, shape and dtype of a whole tensor to an empty one, cut as this process needs it.
    """
    from torch.distributed import is_initialized
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    reader = HuggingFaceStorageReader(str(folder))
    tensors = {
        name: place(name, about.size, about.properties.dtype)
        for name, about in reader.read_metadata().state_dict_metadata.items()
        if isinstance(about, TensorStorageMetadata)
    }
    load(tensors, storage_reader=reader, no_dist=not is_initialized())
    return tensors
