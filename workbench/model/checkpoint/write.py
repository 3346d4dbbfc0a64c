"""Writing: from a state dict to a folder that a reader finds whole or not at all.

In the transformers layout a tensor is called what its module calls it, and is stored as it is.
`DeepseekV4ForCausalLM.from_pretrained` takes these names without a missing or unexpected key; its own
save_pretrained writes a mixture of names and no MTP block. The official layout stores the types of the
release, FP8 and FP4 included, and loses what those do not hold.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.config import ModelConfig
from workbench.model.checkpoint.files import CONFIG, INDEX, SINGLE
from workbench.model.checkpoint.plan import FileLayout, Stored, plan
from workbench.model.names import scale_name
from workbench.quant.formats import quantize
from workbench.units import GB

_OFFICIAL_TYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "I64": torch.int64}


def write_state(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    folder: str | Path,
    *,
    layout: FileLayout = "transformers",
    max_shard_bytes: int = int(5 * GB),
) -> None:
    """Write a state dict (transformers' names) and its config.json.

    A file larger than `max_shard_bytes` is split, between tensors. All files are written under a
    temporary name first and config.json appears last, so an interrupted call leaves no checkpoint.

    Raises:
        ValueError: the state dict is not this model's, the layout is none of "transformers" and
            "official", or the folder holds a checkpoint already.
    """
    folder = Path(folder)
    if layout not in ("transformers", "official"):
        raise ValueError(
            f"write_state: layout {layout!r} is not written; choose 'transformers' or 'official'"
        )
    _check_state(state, config)
    if folder.is_dir():
        there = [
            file.name
            for file in folder.iterdir()
            if file.suffix == ".safetensors" or file.name in (CONFIG, INDEX)
        ]
        if there:
            raise ValueError(
                f"write_state: {folder} holds {sorted(there)[:3]} already; it needs a place without a "
                f"checkpoint; choose a new folder or remove the old files"
            )
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    scratch.mkdir()
    try:
        for name in _write_files(state, config, scratch, layout, max_shard_bytes):
            (scratch / name).replace(folder / name)
    finally:
        shutil.rmtree(scratch)


def _check_state(state: Mapping[str, Tensor], config: ModelConfig) -> None:
    shapes = {stored.target: stored.shape for stored in plan(config, "transformers")}
    wrong = [f"{name} is missing" for name in shapes if name not in state]
    wrong += [f"{name} is not in the model" for name in state if name not in shapes]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, needs {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        raise ValueError(
            f"write_state: {len(wrong)} tensors do not fit the configuration: {', '.join(wrong[:5])}; pass "
            f"the state dict of a Transformer and its own config"
        )


def _write_files(
    state: Mapping[str, Tensor], config: ModelConfig, scratch: Path, layout: FileLayout, max_shard_bytes: int
) -> list[str]:
    """Write everything into `scratch`; returns the file names, the one that completes a checkpoint last."""
    shards: list[list[Stored]] = [[]]
    room = max_shard_bytes
    for stored in plan(config, layout):
        size = _size(stored, state, layout)
        if size > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(stored)
        room -= size
    files = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [SINGLE]
    weight_map: dict[str, str] = {}
    total = 0
    for file, shard in zip(files, shards, strict=True):
        encoded: dict[str, Tensor] = {}
        for stored in shard:
            encoded |= _encode(stored, state, layout)
        # By convention a file says which framework's tensors it holds; some readers insist.
        save_file(encoded, scratch / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(encoded, file)
        total += sum(tensor.nbytes for tensor in encoded.values())
    texts: dict[str, dict[str, Any]] = {CONFIG: _config_values(state, config, layout)}
    if len(shards) > 1:
        texts = {INDEX: {"metadata": {"total_size": total}, "weight_map": weight_map}} | texts
    for name, values in texts.items():
        (scratch / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return [*files, *texts]


def _size(stored: Stored, state: Mapping[str, Tensor], layout: FileLayout) -> int:
    if layout == "transformers":
        return state[stored.target].nbytes
    return stored.source.stored_bytes // stored.source.copies


def _encode(stored: Stored, state: Mapping[str, Tensor], layout: FileLayout) -> dict[str, Tensor]:
    tensor = state[stored.target].detach()
    if layout == "transformers":
        return {stored.name: tensor.cpu().contiguous()}
    if stored.expert is not None:
        tensor = tensor[stored.expert, stored.first_row : stored.first_row + stored.shape[0]]
    tensor = tensor.cpu()
    fmt = stored.block_format
    if fmt is None:
        return {stored.name: tensor.to(_OFFICIAL_TYPES[stored.source.stored]).contiguous()}
    packed = quantize(tensor, fmt).packed()
    return {
        stored.name: packed["codes"].view(torch.int8 if fmt.is_packed else torch.float8_e4m3fn),
        scale_name(stored.name): packed["scales"].view(torch.float8_e8m0fnu),
    }


def _config_values(state: Mapping[str, Tensor], config: ModelConfig, layout: FileLayout) -> dict[str, Any]:
    if layout == "transformers":
        # The weights are plain numbers now: a quantization_config would have a reader look for scales.
        dtype = str(state["lm_head.weight"].dtype).removeprefix("torch.")
        config = config.replace(quantization_config=None, expert_dtype=None, torch_dtype=dtype)
    else:
        config = config.replace(torch_dtype="bfloat16")
    return {"architectures": ["DeepseekV4ForCausalLM"], **config.to_dict()}
