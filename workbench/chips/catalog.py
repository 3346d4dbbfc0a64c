"""59 chips, every number with source, kind and confidence; what is not known stays None.

A chip is the package that is sold. Of a 910C or an MI250X software sees two devices: `Chip.device()`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from workbench.chips.arithmetic import Arithmetic, choose_arithmetic
from workbench.chips.quantity import Quantity, read_quantity

FOLDER = Path(__file__).parents[1] / "data" / "chips"

# Values that a package shares out among its devices, and those of which more is slower or dearer.
_SHARED = (
    "dies", "die_mm2", "compute_dies", "matrix_cores", "vector_cores", "memory_bytes", "memory_byte_per_s",
    "l2_bytes", "scaleup_byte_per_s", "scaleout_byte_per_s", "tdp_w", "price_usd", "rent_usd_per_h", "tpp",
)  # fmt: skip
_LESS_IS_FASTER = ("scaleup_latency_s", "die_to_die_latency_s")
# Bands of these say nothing about speed.
_NO_SPEED = (
    "tdp_w", "price_usd", "rent_usd_per_h", "tpp", "performance_density", "year", "dies", "compute_dies",
    "die_mm2", "chiplets", "logical_devices", "scaleup_chips", "memory_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Chip:
    """One chip. Sizes in bytes, rates per second and direction, dense peaks; None is unknown.

    peak_flop_per_s holds the peak of each number format that the matrix units multiply, and those of the
    vector units as "vector_fp16" and "vector_fp32". On-chip sizes are those of one core. `quantities` holds
    each number once more with its source, kind, confidence and band.
    """

    key: str
    name: str
    vendor: str
    family: str
    confidence: str
    source: str
    peak_flop_per_s: Mapping[str, float]
    quantities: Mapping[str, Quantity] = field(repr=False, compare=False)
    generation: str | None = None
    status: str | None = None
    process: str | None = None
    memory_type: str | None = None
    link: str | None = None
    formats: str | None = None
    export_to_china: str | None = None
    notes: str | None = None
    year: int | None = None

    dies: float | None = None
    die_mm2: float | None = None
    compute_dies: float | None = None
    chiplets: float | None = None
    logical_devices: float = 1
    matrix_cores: float | None = None
    vector_cores: float | None = None
    clock_hz: float | None = None

    memory_bytes: float | None = None
    memory_byte_per_s: float | None = None
    l2_bytes: float | None = None
    last_level_bytes: float | None = None

    # Huawei: L1, L0A, L0B, L0C of a cube core, unified buffer of a vector core
    l1_bytes: float | None = None
    l0a_bytes: float | None = None
    l0b_bytes: float | None = None
    l0c_bytes: float | None = None
    ub_bytes: float | None = None
    bias_table_bytes: float | None = None
    # NVIDIA and AMD: usable shared memory of a multiprocessor, registers, tensor memory, local data share
    shared_memory_bytes: float | None = None
    register_bytes: float | None = None
    tensor_memory_bytes: float | None = None
    lds_bytes: float | None = None
    # Cambricon: neuron and weight memory of a core, shared memory of a cluster; Google: vector memory
    nram_bytes: float | None = None
    wram_bytes: float | None = None
    cluster_sram_bytes: float | None = None
    vmem_bytes: float | None = None

    scaleup_byte_per_s: float | None = None
    scaleup_chips: float | None = None
    scaleup_latency_s: float | None = None
    pair_byte_per_s: float | None = None
    die_to_die_byte_per_s: float | None = None
    die_to_die_latency_s: float | None = None
    scaleout_byte_per_s: float | None = None

    tdp_w: float | None = None
    price_usd: float | None = None
    rent_usd_per_h: float | None = None
    tpp: float | None = None
    performance_density: float | None = None

    @property
    def is_uncertain(self) -> bool:
        """Its numbers come from press and community: every result needs its band."""
        return self.confidence == "C"

    def quantity(self, name: str) -> Quantity:
        """A number with its source: a field's name, or a number format for its peak.

        Raises:
            ValueError: nothing is known under that name.
        """
        if name not in self.quantities:
            known = ", ".join(sorted(self.quantities))
            raise ValueError(
                f"Chip.quantity: {self.key} has no {name}; known are {known}; give it with replace({name}=…)"
            )
        return self.quantities[name]

    def need(self, name: str) -> float:
        """A field that a calculation cannot do without.

        Raises:
            ValueError: it is not known; the message gives the band, if there is one.
        """
        value = getattr(self, name)
        if value is None:
            band = self.quantities.get(name)
            between = f" (between {band.lower:g} and {band.upper:g})" if band and band.is_banded else ""
            raise ValueError(
                f"{self.key}: {name} is not known{between}; this needs a number; give one with "
                f"chip.replace({name}=…)"
            )
        return float(value)

    def arithmetic(self, weight: str, activation: str = "bf16") -> Arithmetic:
        """What this chip computes a product in when weights and activations have these formats."""
        formats = (weight, activation)
        if formats not in self._chosen:
            self._chosen[formats] = choose_arithmetic(self.key, self.peak_flop_per_s, weight, activation)
        return self._chosen[formats]

    @cached_property
    def _chosen(self) -> dict[tuple[str, str], Arithmetic]:
        return {}

    def replace(self, **changes: Any) -> Chip:
        """A custom chip: a copy with some numbers changed, in SI units; a number format sets its peak.

        `replace(fp8=None)` takes a format away. What is changed counts as assumed, of confidence C; TPP
        and performance density are recomputed by workbench.chips.policy, not here, and become None.

        Raises:
            ValueError: no field of that name; the message lists the closest.
        """
        fields = {f.name for f in dataclasses.fields(self)} - {"quantities", "peak_flop_per_s"}
        peaks, quantities = dict(self.peak_flop_per_s), dict(self.quantities)
        plain: dict[str, Any] = {}
        for name, value in changes.items():
            if name in _peak_names():
                peaks[name] = value
            elif name in fields:
                plain[name] = value
            else:
                raise ValueError(unknown("Chip.replace: field", name, fields | set(_peak_names())))
            old = quantities.pop(name, None)
            if isinstance(value, (int, float)):
                unit = old.unit if old else "flop/s" if name in peaks else ""
                quantities[name] = Quantity(value, unit, "changed by the caller", "assumed", "C")
        if changes.keys() - {"key", "name", "notes"}:
            # What was derived from the old numbers no longer holds.
            for name in {"tpp", "performance_density"} - changes.keys():
                plain[name] = None
                quantities.pop(name, None)
            plain.setdefault("key", self.key.removesuffix("-custom") + "-custom")
        peaks = {name: peak for name, peak in peaks.items() if peak is not None}
        return dataclasses.replace(self, peak_flop_per_s=peaks, quantities=quantities, **plain)

    def device(self) -> Chip:
        """What software sees as one device: half a 910C, half an MI250X; the chip itself elsewhere."""
        return self._device

    @cached_property
    def _device(self) -> Chip:
        n = int(self.logical_devices)
        if n == 1:
            return self
        shared = {name: value / n for name in _SHARED if (value := getattr(self, name)) is not None}
        quantities = {
            name: _scaled(q, n) if name in _SHARED or name in self.peak_flop_per_s else q
            for name, q in self.quantities.items()
        }
        return dataclasses.replace(
            self, key=f"{self.key}-die", name=f"{self.name}, one of {n} devices", logical_devices=1,
            peak_flop_per_s={name: peak / n for name, peak in self.peak_flop_per_s.items()},
            quantities=quantities, **shared,
        )  # fmt: skip

    def slowest(self) -> Chip:
        """Every banded rate and size at the slow end of its band."""
        return self._at_end(is_fast=False)

    def fastest(self) -> Chip:
        """Every banded rate and size at the fast end of its band."""
        return self._at_end(is_fast=True)

    def _at_end(self, is_fast: bool) -> Chip:
        ends = {
            name: q.at(is_fast != (name in _LESS_IS_FASTER))
            for name, q in self.quantities.items()
            if q.is_banded and name not in _NO_SPEED
        }
        peaks = {name: float(ends.get(name) or peak) for name, peak in self.peak_flop_per_s.items()}
        plain: dict[str, Any] = {n: v for n, v in ends.items() if n not in self.peak_flop_per_s}
        return dataclasses.replace(self, peak_flop_per_s=peaks, **plain)


def _scaled(q: Quantity, n: int) -> Quantity:
    parts = {name: getattr(q, name) for name in ("value", "lower", "upper")}
    return dataclasses.replace(q, **{k: v / n for k, v in parts.items() if v is not None})


def chips() -> list[str]:
    """The names that `load_chip` knows, in the order of the data file."""
    return list(_document()["chips"])


def load_chip(name: str) -> Chip:
    """A chip by name: "ascend-910c", "h800", "mlu590"; case, spaces and underscores do not matter.

    Raises:
        ValueError: no chip of that name; the message lists the closest.
    """
    key = chip_names().get(slug(name))
    if key is None:
        raise ValueError(unknown("load_chip: chip", slug(name), chip_names()))
    return _load(key)


def slug(name: str) -> str:
    """A name as the data files write it: lower case, hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


@lru_cache(maxsize=128)
def _load(key: str) -> Chip:
    document = _document()
    entry = dict(document["chips"][key])
    values, units = entry.pop("values"), document["units"]
    quantities = {
        name: read_quantity(
            value,
            "TFLOP/s" if name in document["peaks"] else units.get(name, ""),
            source=entry["source"],
            confidence=entry["confidence"],
            community_band=0 if name in _NO_SPEED else document["community_band"]["value"],
        )
        for name, value in values.items()
    }
    known = {name: q.value for name, q in quantities.items() if q.value is not None}
    peaks = {name: known.pop(name) for name in document["peaks"] if name in known}
    text = {f.name for f in dataclasses.fields(Chip)}
    described = {k: v for k, v in entry.items() if k in text}
    return Chip(key=key, peak_flop_per_s=peaks, quantities=quantities, **described, **known)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "chips.json").read_text(encoding="utf-8"))
    return document


@lru_cache(maxsize=1)
def chip_names() -> dict[str, str]:
    """Every accepted name -> key: keys, full names, aliases."""
    names = {}
    for key, entry in _document()["chips"].items():
        for name in (key, entry["name"], *entry.get("aliases", [])):
            names[slug(name)] = key
    return names


def _peak_names() -> tuple[str, ...]:
    return tuple(_document()["peaks"])


def unknown(what: str, name: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """The message for a name that is not there, with the closest; a mapping says what to call them."""
    called = dict(known) if isinstance(known, Mapping) else {k: k for k in known}
    # Not only what is spelt alike: "910" is meant as one of the 910s.
    within = [k for k in called if name and name in k]
    close = list(dict.fromkeys(called[k] for k in within or difflib.get_close_matches(name, called, 4, 0.5)))
    choice = (
        f"did you mean {' or '.join(close[:4])}" if close else f"choose one of {sorted({*called.values()})}"
    )
    return f"{what} {name!r} is unknown; {choice}"
