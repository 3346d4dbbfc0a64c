"""NVFP4 with its second level: FP4 in blocks of 16, E4M3 block scales, one fp32 scale for the tensor.

The tensor scale spreads the block scales over the whole of E4M3. Four-over-six spends part of that: each
block also tries to map its amax to 4 instead of 6, because FP4 has no number between 4 and 6, and keeps
what errs less. The larger scale, 6/4 of the usual, has to fit E4M3 too, so the tensor scale aims at 256.

Source: NVIDIA, "Pretraining Large Language Models with NVFP4" (arXiv 2509.25149); Four Over Six (arXiv
2512.02010), of which the 256 is second-hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from workbench.quant.blocks import BlockFormat, Levels
from workbench.quant.quantized import Quantized


class _Attempt(NamedTuple):
    codes: Tensor
    scales: Tensor  # as stored
    multiplier: Tensor


@dataclass(frozen=True)
class TwoLevelFormat(BlockFormat):
    """A block format whose scales are stored relative to one fp32 number for the tensor.

    top_scale: the stored scale of the block that holds the tensor's amax.
    targets: the elements that a block's amax may be mapped to; the first wins ties.
    """

    top_scale: float = 448.0
    targets: tuple[float, ...] = (6.0,)

    def _round(
        self, blocks: Tensor, amax: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Levels]:
        # A tensor of zeros has a scale too; 2^-126 leaves room for the least block scale below it.
        largest = amax.max() if amax.numel() else amax.new_zeros(())
        tensor_scale = (largest / (self.top_scale * self.element.largest)).clamp(min=2.0**-126)

        def attempt(target: float) -> _Attempt:
            scales = self._stored(amax / target / tensor_scale)
            scale = self.multiplier(scales, tensor_scale)
            return _Attempt(
                self.element.encode(blocks / scale, self.ties, generator=generator), scales, scale
            )

        best = attempt(self.targets[0])
        for target in self.targets[1:]:
            new = attempt(target)
            is_better = self._loss(blocks, new) < self._loss(blocks, best)
            best = _Attempt(*(torch.where(is_better, a, b) for a, b in zip(new, best, strict=True)))
        return best.codes, Levels(best.scales, tensor_scale)

    def unpack(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Quantized:
        tensor_scale = self.part(stored, "tensor_scale", (), torch.float32)
        return replace(super().unpack(stored, shape), tensor_scale=tensor_scale)

    def _loss(self, blocks: Tensor, attempt: _Attempt) -> Tensor:
        """Squared error of each block, in fp64, so that no order of summation decides."""
        error = blocks.double() - (self.element.decode(attempt.codes) * attempt.multiplier).double()
        return reduce(error.square(), "b R r C c -> b R 1 C 1", "sum")
