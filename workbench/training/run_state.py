"""Checkpoints of a run: everything that its next step depends on, in files that hold no code.

A checkpoint is a folder step-00000100 with safetensors files (weights, optimiser states, the random
generator) and run.json (counters, what the run is, and size and checksum of every file). It is written
beside and renamed when whole, so a kill leaves the one before. A run of several processes writes a file
each; any number of processes reads them back.
"""

import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from workbench.model import Transformer
from workbench.training.distributed.files import read_tensors
from workbench.training.loader import Loader
from workbench.training.ranks import ALONE, STATE, Ranks

RUN = "run.json"
KEPT = 2  # the newest checkpoints that stay


class Part(Protocol):
    """Something beside model and optimiser on whose state the next step depends.

    `load_state_dict` gets nothing from a checkpoint of a run that went without the part.
    """

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None: ...


@dataclass
class RunState:
    """A run between two steps. `identity` is what a checkpoint must share to be resumed."""

    model: Transformer
    optimizers: Sequence[torch.optim.Optimizer]
    loader: Loader
    identity: dict[str, Any]
    step: int = 0
    tokens: int = 0
    parts: Mapping[str, Part] = field(default_factory=dict)
    ranks: Ranks = ALONE


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".tmp")


def checkpoint_step(checkpoint: Path) -> int:
    """How many steps a run had made at a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def save(state: RunState, folder: Path) -> Path:
    """Write a checkpoint and remove all but the last two."""
    target = folder / f"step-{state.step:08d}"
    scratch = target.with_suffix(".tmp")
    if state.ranks.is_first:
        for leftover in folder.glob("step-*.tmp"):
            shutil.rmtree(leftover)
        scratch.mkdir(parents=True)
    state.ranks.wait()
    state.ranks.write(_tensors(state), scratch)
    state.ranks.wait()
    files = _files(state.ranks, scratch, sorted(path.name for path in scratch.iterdir()))
    if state.ranks.is_first:
        run = {
            "step": state.step,
            "tokens": state.tokens,
            "position": state.loader.position,
            "optimizers": [_settings(optimizer) for optimizer in state.optimizers],
            "identity": state.identity,
            "files": files,
        }
        (scratch / RUN).write_text(json.dumps(run, indent=1, default=str))
        shutil.rmtree(target, ignore_errors=True)  # of this step, from a run that went back behind it
        os.replace(scratch, target)
        for old in checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old)
    state.ranks.wait()
    return target


def restore(state: RunState, folder: Path) -> bool:
    """Put a run where its newest checkpoint left it; False if there is none.

    Raises:
        ValueError: the checkpoint is damaged, or of a run with another configuration, recipe or data.
    """
    found = checkpoints(folder)
    if not found:
        return False
    newest = found[-1]
    try:
        run = json.loads((newest / RUN).read_text())
        saved, written = run["identity"], {name: list(values) for name, values in run["files"].items()}
        for name, (size, _) in written.items():
            if (newest / name).stat().st_size != size:
                raise ValueError(f"{name} has {(newest / name).stat().st_size} of {size} bytes")
        found_now = _files(state.ranks, newest, sorted(written))
        if changed := [name for name in written if found_now[name] != written[name]]:
            raise ValueError(f"{changed[0]} is not what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(found, error) from error
    ours = json.loads(json.dumps(state.identity, default=str))
    if changed := _differences(saved, ours):
        raise ValueError(
            f"restore: {newest} is of another run: {'; '.join(changed)}; give the same settings, or another "
            f"folder for the new run"
        )
    try:
        tensors = _read(state, newest)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(found, error) from error
    _load(state, tensors)
    for optimizer, settings in zip(state.optimizers, run["optimizers"], strict=True):
        for group, values in zip(optimizer.param_groups, settings, strict=True):
            group["lr"] = values["lr"]
    state.step, state.tokens, state.loader.position = run["step"], run["tokens"], run["position"]
    return True


def _files(ranks: Ranks, folder: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """Size and checksum of files that all processes see; each process reads its share of them."""
    return ranks.merged({name: _checked(folder / name) for name in names[ranks.rank :: ranks.n_ranks]})


def _checked(path: Path) -> list[int]:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            checksum = zlib.crc32(piece, checksum)
    return [path.stat().st_size, checksum]


def _damaged(found: Sequence[Path], error: Exception) -> ValueError:
    earlier = found[-2].name if len(found) > 1 else "none"
    return ValueError(
        f"restore: {found[-1]} is damaged ({error}); needs whole safetensors files and {RUN}; remove that "
        f"folder to go on from the one before: {earlier}"
    )


def _read(state: RunState, checkpoint: Path) -> dict[str, Tensor]:
    if state.ranks.n_ranks == 1 and (checkpoint / STATE).is_file():
        return load_file(checkpoint / STATE)
    parameters = [
        [p for group in optimizer.param_groups for p in group["params"]] for optimizer in state.optimizers
    ]
    weights = state.model.state_dict()

    def place(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """An empty tensor, cut over the processes as what it belongs to."""
        kind, _, rest = name.partition(".")
        if kind == "model":
            return torch.empty_like(weights[rest])
        if kind == "optimizer":
            number, index, _ = rest.split(".", 2)
            parameter = parameters[int(number)][int(index)]
            if parameter.shape == shape:
                return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
        return torch.empty(shape, dtype=dtype)

    return read_tensors(checkpoint, place)


def _tensors(state: RunState) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    for i, optimizer in enumerate(state.optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{index}.{key}": value for key, value in values.items()}
    for part, own in state.parts.items():
        tensors |= {f"part.{part}.{name}": tensor for name, tensor in own.state_dict().items()}
    tensors["generator"] = torch.get_rng_state()
    return tensors


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{"lr": group["lr"]} for group in optimizer.param_groups]


def _load(state: RunState, tensors: dict[str, Tensor]) -> None:
    state.model.load_state_dict(_under(tensors, "model."))
    for i, optimizer in enumerate(state.optimizers):
        values: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, f"optimizer.{i}.").items():
            index, key = name.split(".", 1)
            values.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    for part, own in state.parts.items():
        own.load_state_dict(_under(tensors, f"part.{part}."))
    torch.set_rng_state(tensors["generator"])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _differences(saved: Any, ours: Any, at: str = "") -> list[str]:
    """Where two nested settings differ, as "path: saved value, now ours"."""
    if isinstance(saved, list) and isinstance(ours, list) and len(saved) == len(ours):
        saved, ours = dict(enumerate(saved)), dict(enumerate(ours))
    if isinstance(saved, dict) and isinstance(ours, dict):
        names = sorted(saved.keys() | ours.keys())
        return [d for name in names for d in _differences(saved.get(name), ours.get(name), f"{at}.{name}")]
    return [] if saved == ours else [f"{at[1:]}: {saved} there, {ours} now"]
