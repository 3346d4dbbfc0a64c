"""Number formats of a deployment, where they differ from the release: one recipe for weights and activations.

A release stores its large maps in FP8 or FP4. An engine may run them in another format: INT8 on a 910C,
NVFP4 on Blackwell, HiF8 on a 950. A `Precision` says so for the dense maps and for the routed experts;
what a release keeps in BF16 or FP32 (router, head, norms) stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from workbench.accounting.tensors import Tensor
from workbench.chips.catalog import unknown
from workbench.chips.operations import Operation

# Bytes a weight, scales included: one FP8 scale a 128×128 block, one byte for 32 (MX) or 16 (NV).
WEIGHT_BYTES = {
    "fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1 + 1 / 128**2, "mxfp8": 1 + 1 / 32, "hif8": 1.0,
    "int8": 1.0, "fp4": 0.5 + 1 / 32, "mxfp4": 0.5 + 1 / 32, "nvfp4": 0.5 + 1 / 16, "int4": 0.5,
}  # fmt: skip
# Bytes an activation on its way into a product, scales included.
ACTIVATION_BYTES = {
    "fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1 + 4 / 128, "mxfp8": 1 + 1 / 32, "hif8": 1.0, "int8": 1.0,
    "fp4": 0.5 + 1 / 32, "mxfp4": 0.5 + 1 / 32, "nvfp4": 0.5 + 1 / 16,
}  # fmt: skip
_STORED = {"FP8": "fp8", "FP4": "fp4", "BF16": "bf16", "F32": "fp32", "I64": "int64"}
_BASE_BYTES = {"fp8": 1.0, "fp4": 0.5, "bf16": 2.0, "fp32": 4.0}
# What a recipe changes in a release that is BF16 throughout: its large maps, by tensor and by operation.
_LARGE = ("q_proj", "k_proj", "v_proj", "o_proj", "experts", "shared experts", "dense mlp")
_LARGE_MAPS = ("q_proj", "k_proj and v_proj", "o_proj", "experts ", "shared ", "mlp ")
# A product runs at the rate of its bits: what scales accompany them shows in the bytes alone.
_BITS = {"mxfp8": "fp8", "hif8": "fp8", "mxfp4": "fp4", "nvfp4": "fp4"}


@dataclass(frozen=True)
class Precision:
    """Formats of the dense maps and of the routed experts; None keeps the release's.

    cache_format is a key of accounting.FORMATS; None again is the release's own.

    Raises:
        ValueError: a format without a size.
    """

    name: str = "as released"
    dense: str | None = None
    dense_activation: str | None = None
    experts: str | None = None
    expert_activation: str | None = None
    cache_format: str | None = None

    def __post_init__(self) -> None:
        for given, known in (
            (self.dense, WEIGHT_BYTES), (self.experts, WEIGHT_BYTES),
            (self.dense_activation, ACTIVATION_BYTES), (self.expert_activation, ACTIVATION_BYTES),
        ):  # fmt: skip
            if given is not None and given not in known:
                raise ValueError(unknown("Precision: number format", given, sorted(known)))

    def weight_bytes(self, tensor: Tensor) -> float:
        """Bytes of one tensor, all its copies, in this recipe."""
        stored = _STORED[tensor.stored]
        chosen = self.experts if tensor.kind == "experts" else self.dense
        if chosen is None or not _is_requantised(tensor, stored):
            return float(tensor.stored_bytes)
        return tensor.parameters * WEIGHT_BYTES[chosen]

    def apply(self, operations: Iterable[Operation]) -> list[Operation]:
        """The same operations with their weights and activations in these formats."""
        if self.dense is None and self.experts is None:
            return list(operations)
        return [self._one(operation) for operation in operations]

    def _one(self, o: Operation) -> Operation:
        is_experts = o.kind == "grouped_gemm"
        weight = self.experts if is_experts else self.dense
        activation = self.expert_activation if is_experts else self.dense_activation
        if o.kind not in ("gemm", "grouped_gemm") or weight is None or o.weight is None or not _is_large(o):
            return o
        activation = activation or o.activation
        return o.replace(
            weight=_BITS.get(weight, weight),
            activation=_BITS.get(activation, activation),
            weight_bytes=o.weight_bytes * WEIGHT_BYTES[weight] / WEIGHT_BYTES[o.weight],
            read_bytes=o.read_bytes * ACTIVATION_BYTES[activation] / _BASE_BYTES[o.activation],
        )


def _is_large(o: Operation) -> bool:
    return o.weight in ("fp8", "fp4") or (o.weight == "bf16" and o.name.startswith(_LARGE_MAPS))


def _is_requantised(tensor: Tensor, stored: str) -> bool:
    return tensor.is_matmul and (stored in ("fp8", "fp4") or (stored == "bf16" and tensor.kind in _LARGE))


RELEASED = Precision()
_NAMED = {
    "as released": RELEASED,
    "bf16": Precision("bf16", "bf16", "bf16", "bf16", "bf16"),
    "fp8": Precision("fp8", "fp8", "fp8", "fp8", "fp8"),
    "nvfp4 experts": Precision("nvfp4 experts", "fp8", "fp8", "nvfp4", "nvfp4"),
    "nvfp4 experts, fp8 activations": Precision(
        "nvfp4 experts, fp8 activations", "fp8", "fp8", "nvfp4", "fp8"
    ),
    "mxfp4 experts": Precision("mxfp4 experts", "fp8", "fp8", "mxfp4", "fp8"),
    "fp8-mxfp4": Precision("fp8-mxfp4", "fp8", "bf16", "mxfp4", "mxfp8"),
    "mxfp8-mxfp4": Precision("mxfp8-mxfp4", "mxfp8", "mxfp8", "mxfp4", "mxfp8"),
    "hif8-mxfp8-mxfp4": Precision("hif8-mxfp8-mxfp4", "hif8", "hif8", "mxfp4", "mxfp8"),
    "int8": Precision("int8", "int8", "int8", "int8", "int8"),
    "int4 experts": Precision("int4 experts", "bf16", "bf16", "int4", "bf16"),
    "int8, int4 experts": Precision("int8, int4 experts", "int8", "int8", "int4", "int8"),
}


def precision(name: str, cache_format: str | None = None) -> Precision:
    """A recipe by name.

    Raises:
        ValueError: no recipe of that name; the message lists the closest.
    """
    if name not in _NAMED:
        raise ValueError(unknown("precision: recipe", name, sorted(_NAMED)))
    return replace(_NAMED[name], cache_format=cache_format)


def precisions() -> list[str]:
    """The names that `precision` knows."""
    return sorted(_NAMED)
