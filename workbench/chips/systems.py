"""Systems to compare: chips in the widest box they are sold in, the formats and the engine V4 runs in there.

What nobody publishes of a system is assumed here in the open: `note` says so, and figures repeat it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

from workbench.chips.catalog import load_chip, unknown
from workbench.chips.clusters import Cluster, load_cluster
from workbench.chips.engines import Engine, engine
from workbench.chips.mapping import Mapping
from workbench.chips.precision import Precision, precision
from workbench.chips.search import mappings
from workbench.config import ModelConfig
from workbench.units import GB

# The last MLU-Link with a published bandwidth, that of the MLU370-X8, and 400 Gb/s of Ethernet a card.
_MLU_LINKS = {"scaleup_byte_per_s": 100 * GB, "scaleout_byte_per_s": 50 * GB}


@dataclass(frozen=True)
class System:
    """One kind of cluster. formats: a key of `precision`; software: a key of `engine`."""

    key: str
    name: str
    vendor: str
    formats: str
    software: str
    note: str = ""

    def cluster(self, chips: int) -> Cluster:
        """`chips` packages of it."""
        return _cluster(self.key, chips)

    @property
    def precision(self) -> Precision:
        return precision(self.formats)

    @property
    def engine(self) -> Engine:
        return engine(self.software)


_ALL = (
    System("cloudmatrix384", "CloudMatrix384 (910C)", "huawei", "int8, int4 experts", "cann-910"),
    System("atlas-950-superpod", "Atlas 950 (950DT)", "huawei", "mxfp8-mxfp4", "cann-950"),
    System(
        "mlu590", "MLU590", "cambricon", "int8, int4 experts", "graph",
        "links assumed: MLU-Link of the MLU370-X8 (100 GB/s) in a node of 8, 400 Gb/s Ethernet between; "
        "peaks and memory are community values, ± 25%",
    ),
    System("h20", "H20", "nvidia", "mxfp4 experts", "sglang-v4"),
    System("h800", "H800", "nvidia", "mxfp4 experts", "sglang-v4"),
    System("h200", "H200", "nvidia", "mxfp4 experts", "sglang-v4"),
    System("b200", "B200", "nvidia", "mxfp4 experts", "sglang-v4"),
    System("gb200-nvl72", "GB200 NVL72", "nvidia", "mxfp4 experts", "sglang-v4"),
    System("gb300-nvl72", "GB300 NVL72", "nvidia", "mxfp4 experts", "sglang-v4"),
    System(
        "mi355x", "MI355X", "amd", "mxfp4 experts", "rocm",
        "kernel and engine constants of AMD are assumed, none is fitted",
    ),
)  # fmt: skip


def systems() -> list[str]:
    """The keys that `load_system` knows, by vendor."""
    return [one.key for one in _ALL]


def load_system(key: str) -> System:
    """A system by key.

    Raises:
        ValueError: no system of that key; the message lists the closest.
    """
    for one in _ALL:
        if one.key == key:
            return one
    raise ValueError(unknown("load_system: system", key, systems()))


@lru_cache(maxsize=64)
def _cluster(key: str, chips: int) -> Cluster:
    if key == "mlu590":
        one = load_chip(key)
        return dataclasses.replace(
            load_cluster(key, chips=chips, chip=one.replace(**_MLU_LINKS, key=key)), key=key
        )
    return load_cluster(key, chips=chips)


def uneven_mappings(config: ModelConfig, devices: int, imbalance: float = 1.0) -> tuple[Mapping, ...]:
    """All layouts of `search.mappings`; where experts are spread, with so much more work on the busiest."""
    return tuple(
        m.replace(expert_imbalance=imbalance) if m.has_expert_traffic("decode") else m
        for m in mappings(config, devices)
    )
