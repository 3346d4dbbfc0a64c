"""Rotary position embedding on the last channels of a vector, and its inverse.

A layer without compression turns by the plain frequencies ("main"). Everything inside a compressing
layer (queries, keys, entries, indexer) turns by the stretched ones ("compress": YaRN).

Report: section 2.3.3 (partial rotary embedding). Axes: b batch, s tokens, h heads, p pairs of channels.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from workbench.model.precision import KeepsFloat32
from workbench.model.v4_config import V4Config

Rule = Literal["main", "compress"]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the last 2p channels of x, in adjacent pairs (a, b); the leading channels pass through.

    A pair is the complex number a + ib, and turning by θ multiplies it by e^(iθ), in fp32:

        (a, b) -> (a cos θ - b sin θ, b cos θ + a sin θ)

    Multiplying by the conjugate turns back. Pairs are neighbours, not the two halves of the channels.

    Shapes: x (..., c), rotation (..., p) complex -> (..., c).
    Source: V4 reference code.
    """
    c, r = x.shape[-1], 2 * rotation.shape[-1]
    if c % 2:
        return torch.cat((x[..., :1], rotate(x[..., 1:], rotation)), dim=-1)
    if r < c:  # The leading pairs turn by 1: one product of all pairs moves less than taking x apart.
        rotation = torch.cat((rotation.new_ones(*rotation.shape[:-1], (c - r) // 2), rotation), dim=-1)
    turned = x.float()
    if turned.storage_offset() % 2 or any(stride % 2 for stride in turned.stride()[:-1]):
        turned = turned.clone()  # a complex number must begin at an even place
    pairs = torch.view_as_complex(turned.view(*x.shape[:-1], c // 2, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def inverse_frequencies(config: V4Config, rule: Rule) -> Tensor:
    """Radians per position of each pair of channels.

    "main" is base^(-2i/r). "compress" uses its own base and YaRN: pairs that turn more than beta_fast
    times within the original context keep their frequency, pairs below beta_slow turns are slowed by
    `factor`, and a linear ramp lies between. V4 has no YaRN magnitude.

    Shapes: -> (r / 2,).
    Source: config.json; YaRN, arXiv 2309.00071.
    """
    r = config.qk_rope_head_dim
    base = config.rope_theta if rule == "main" else config.compress_rope_theta
    frequency = 1.0 / base ** (torch.arange(0, r, 2, dtype=torch.float32, device="cpu") / r)
    yarn = config.rope_scaling
    if rule == "main" or yarn is None:
        return frequency
    if yarn.type != "yarn" or yarn.beta_fast is None or yarn.beta_slow is None:
        raise ValueError(
            f"inverse_frequencies: rope_scaling is {yarn}; V4 needs type 'yarn' with beta_fast and "
            f"beta_slow; correct config.json"
        )

    def pair_with_turns(turns: float) -> float:
        return (
            r * math.log(yarn.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(base))
        )

    low = max(math.floor(pair_with_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with_turns(yarn.beta_slow)), r - 1)
    width = high - low or 0.001
    ramp = ((torch.arange(r // 2, dtype=torch.float32, device="cpu") - low) / width).clamp(0, 1)
    return frequency / yarn.factor * ramp + frequency * (1 - ramp)


class RotaryEmbedding(KeepsFloat32):
    """The two frequency tables of a model. They hold no weights and are not saved."""

    float32_tensors = ("main", "compress")

    def __init__(self, config: V4Config):
        super().__init__()
        self.main: Tensor
        self.compress: Tensor
        self.register_buffer("main", inverse_frequencies(config, "main"), persistent=False)
        self.register_buffer("compress", inverse_frequencies(config, "compress"), persistent=False)

    def forward(self, positions: Tensor, rule: Rule, dtype: torch.dtype) -> Tensor:
        """e^(i·position·frequency) for each position and pair. Angles are fp32.

        Shapes: positions (...) -> (..., r / 2), complex.
        """
        angle = positions.unsqueeze(-1).float() * (self.main if rule == "main" else self.compress)
        # A bf16 model rounds cos and sin, as transformers does; the turn itself is fp32.
        return torch.complex(angle.cos().to(dtype).float(), angle.sin().to(dtype).float())
