"""How large numbers get inside a network while it trains: what grows before a loss does.

Report: section 4.2.3 (spikes go with outliers in the MoE layers), section 2.4 (why no QK-Clip).
Axes: b rows, s tokens, h heads.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from workbench.model import Transformer
from workbench.model.layer import DecoderLayer

METERS = ("expert_output", "shared_activation", "attention_logit", "residual_norm")


class OutlierMeter:
    """Watches a model's layers while it is entered; `rows()` says how far they went since it was last asked.

    expert_output: the largest number that the routed experts return. shared_activation: the largest that
    the shared expert's SwiGLU gives; with the clamp at most L·silu(L), 100 for L = 10. attention_logit:
    the largest logit of any head; infinite if it is so far above the sink's that the sink gets no
    probability. residual_norm: the largest Euclidean norm of a token's residual stream after the layer.
    """

    def __init__(self, model: Transformer):
        self.layers = [layer for layer in model.model.layers if isinstance(layer, DecoderLayer)]
        self._largest = [dict.fromkeys(METERS, 0.0) for _ in self.layers]
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        for number, layer in enumerate(self.layers):
            moe, core = layer.mlp, layer.self_attn.core
            self._watch(moe.experts, number, "expert_output", lambda _, y: y.abs().amax())
            self._watch(
                moe.shared_experts.down_proj, number, "shared_activation", lambda i, _: i[0].abs().amax()
            )
            self._watch(core, number, "attention_logit", lambda i, o: _largest_logit(i[-1], o[1]))
            self._watch(layer, number, "residual_norm", lambda _, x: x.float().norm(dim=-1).amax())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()

    def rows(self) -> list[dict[str, Any]]:
        """One row a layer, {"layer", and the meters}; the next row starts anew."""
        rows = [{"layer": number, **largest} for number, largest in enumerate(self._largest)]
        self._largest = [dict.fromkeys(METERS, 0.0) for _ in self.layers]
        return rows

    def _watch(self, module: nn.Module, number: int, name: str, read: Callable[[Any, Any], Tensor]) -> None:
        @torch.no_grad()
        def note(_: nn.Module, inputs: Any, output: Any) -> None:
            seen, largest = float(read(inputs, output)), self._largest[number]
            if seen > largest[name] or math.isnan(seen):  # NaN stays: nothing is larger than it
                largest[name] = seen

        self._hooks.callback(module.register_forward_hook(note).remove)


def _largest_logit(sinks: Tensor, probabilities: tuple[Tensor, ...]) -> Tensor:
    """The largest logit of any head: l_j = sink + log(P_j / P_sink), at its likeliest key j.

    Shapes: sinks (h,); probabilities (b, s·h, keys) of each part, the sink's last.
    """
    *keys, sink = probabilities
    likeliest = torch.stack([part.amax(dim=-1) for part in keys if part.shape[-1]]).amax(dim=0)
    above = rearrange(likeliest.log() - sink.squeeze(-1).log(), "b (s h) -> b s h", h=len(sinks))
    return (above + sinks).amax()
