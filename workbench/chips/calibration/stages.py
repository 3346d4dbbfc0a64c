"""Which constants are fitted together, on which kernels, within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.chips.kernel_rows import MODULES

Guess = tuple[float, float, float]  # first guess, least, greatest


@dataclass(frozen=True)
class Stage:
    """Constants fitted together.

    kernels: ops of the table; scatter: paths whose bounds the residuals set; own, shared: by path/name, those
    of a generation and those of the whole family.
    """

    name: str
    kernels: tuple[str, ...]
    scatter: tuple[str, ...]
    own: Mapping[str, Guess]
    shared: Mapping[str, Guess]


_LAUNCH = (4e-6, 3e-7, 3e-5)
_SHARE = (0.7, 0.05, 0.98)
_STEP = (5e-8, 1e-10, 2e-6)
_STREAM = (0.8, 0.3, 0.98)
_KERNEL = {"launch": _LAUNCH, "efficiency": _SHARE, "step": _STEP}

STAGES = (
    Stage(
        "products",
        kernels=("gemm",),
        scatter=("gemm",),
        own={
            **{f"gemm.{bits}/{name}": guess for bits in ("16", "8", "4") for name, guess in _KERNEL.items()},
            "any/memory": _STREAM,
            "any/load": (1e11, 1e10, 5e11),
            "gemm/warm": (0.3, 0.0, 1.0),
        },
        shared={"any/overlap": (4.0, 1.5, 12.0)},
    ),
    Stage(
        "vectors",
        kernels=("mhc_pre (2 sites)", "mhc_post (2 sites)"),
        scatter=("vector", "gather"),
        own={"vector/launch": _LAUNCH, "vector/memory": _STREAM, "gemm.32/launch": _LAUNCH},
        shared={"vector/warm": (0.5, 0.0, 1.0)},
    ),
    Stage(
        "experts",
        kernels=("moe_experts",),
        scatter=("experts",),
        own={
            f"experts.{bits}/{name}": guess
            for bits in ("8", "4x8", "4")
            for name, guess in {**_KERNEL, "memory": _STREAM}.items()
        },
        shared={"experts/overlap": (2.0, 1.0, 12.0)},
    ),
    Stage(
        "attention",
        kernels=tuple(MODULES),
        scatter=("attention", "index", "topk"),
        own={
            "attention/launch": _LAUNCH,
            "attention/efficiency": _SHARE,
            "index/efficiency": (0.3, 0.02, 0.98),
            "topk/launch": (6e-5, 1e-6, 3e-4),
            "topk_long/launch": (1e-5, 1e-6, 3e-4),
            "topk/memory": (0.3, 0.02, 0.98),
        },
        shared={"attention/ramp": (3.0, 0.1, 20.0)},
    ),
)
