"""Do these files hold this model? Answered from the headers, before a single weight is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from workbench.config import ModelConfig
from workbench.model.checkpoint.files import BLOCK_FORMATS, Entry, Folder
from workbench.model.checkpoint.plan import FileLayout, Stored, layout_of, plan
from workbench.model.names import scale_name

_REMEDIES = {
    "damaged": "fetch these files again",
    "missing": "fetch the shards that hold them, or correct config.json",
    "surplus": "check that config.json and the index belong to these weights",
    "misshaped": "check that config.json belongs to these weights",
    "wrongly typed": "convert them, or correct quantization_config in config.json",
}
_NAMED = 5
_FLOATS, _INTEGERS = ("BF16", "F16", "F32"), ("I64", "I32")


@dataclass(frozen=True)
class Fault:
    """One way in which files and configuration disagree, with every tensor or file concerned."""

    what: str
    where: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.where) - _NAMED
        listed = ", ".join(self.where[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        remedy = _REMEDIES[self.what]
        if self.what == "missing" and all(name.startswith("mtp.") for name in self.where):
            remedy = "load with mtp=False to leave the multi-token-prediction blocks out"
        return f"{len(self.where)} {self.what}: {listed}; {remedy}"


def compare(folder: Folder, config: ModelConfig) -> tuple[FileLayout, list[Fault]]:
    """Hold the headers of a folder against the tensors that the configuration needs.

    Without MTP blocks in the configuration, `mtp.` tensors in the files are passed over.
    """
    layout = layout_of(folder.entries)
    found: dict[str, list[str]] = defaultdict(list)
    found["damaged"] += folder.damage
    known = set()
    for stored in plan(config, layout):
        known |= _check_one(stored, folder.entries, layout, found)
    ignored = () if config.num_nextn_predict_layers else ("mtp.",)
    found["surplus"] += [n for n in folder.entries if n not in known and not n.startswith(ignored)]
    return layout, [Fault(what, tuple(found[what])) for what in _REMEDIES if found[what]]


def _check_one(
    stored: Stored, entries: Mapping[str, Entry], layout: FileLayout, found: dict[str, list[str]]
) -> set[str]:
    """Note the faults of one tensor and its scales; returns the names that belong to it."""
    name = stored.name
    entry = entries.get(name)
    if entry is None:
        found["missing"].append(name)
        return {name, scale_name(name)}
    shape = stored.shape
    fmt = BLOCK_FORMATS.get(entry.dtype) if stored.block_format and layout == "official" else None
    if fmt is not None:
        o, i = shape
        shape = fmt.code_shape((o, i))
        scale = entries.get(scale_name(name))
        if scale is None:
            found["missing"].append(scale_name(name))
        elif scale.dtype != "F8_E8M0":
            found["wrongly typed"].append(f"{scale_name(name)} is {scale.dtype}, needs F8_E8M0")
        elif scale.shape != fmt.scale_shape((o, i)):
            found["misshaped"].append(f"{scale_name(name)} is {scale.shape}, needs {fmt.scale_shape((o, i))}")
    else:
        allowed = _INTEGERS if stored.is_integer else _FLOATS
        if entry.dtype not in allowed:
            found["wrongly typed"].append(f"{name} is {entry.dtype}, needs {' or '.join(allowed)}")
    if entry.shape != shape:
        found["misshaped"].append(f"{name} is {entry.shape}, needs {shape}")
    return {name} if fmt is None else {name, scale_name(name)}


def refuse(caller: str, folder: Folder, faults: list[Fault]) -> None:
    """Raise one error that lists every fault, if there is one.

    Raises:
        ValueError: `faults` is not empty.
    """
    if faults:
        lines = "\n  ".join(str(fault) for fault in faults)
        raise ValueError(
            f"{caller}: {folder.path} does not hold the model of its config.json, so nothing was loaded\n"
            f"  {lines}"
        )
