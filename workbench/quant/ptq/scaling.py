"""SmoothQuant and AWQ: move size from a channel of the inputs to the weights, or protect what counts.

Both pick one factor per input channel and leave the product as it was: (x / s)(W s)ᵀ = x Wᵀ.

    SmoothQuant    s = max|x|^α / max|W|^(1-α)       both factors get rounded: even out their sizes
    AWQ            s = mean|x|^α, α by search        the weight gets rounded: large channels, finer steps

The factors of a stack of experts are shared by all of them. Chips apply 1/s on the fly (CANN calls it a
smooth vector) or fold it into the norm before.

Source: Xiao et al., arXiv 2211.10438; Lin et al., arXiv 2306.00978.
Axes: n outputs, k inputs, e experts or groups.
"""

import torch
from einops import reduce
from torch import Tensor

from workbench.quant.ptq.inputs import Inputs
from workbench.quant.quantized import Format
from workbench.quant.rounded import round_to

LEAST = 1e-5  # of a channel's size: a channel that calibration never moved keeps its scale
ALPHAS = tuple(i / 10 for i in range(11))


def smooth_scale(stack: Tensor, inputs: Inputs, alpha: float = 0.5) -> Tensor:
    """SmoothQuant's factors. stack (e, n, k) -> (k,)."""
    of_weight = reduce(stack.abs(), "e n k -> k", "max").clamp(min=LEAST)
    of_input = reduce(inputs.largest, "e k -> k", "max").clamp(min=LEAST)
    return of_input**alpha / of_weight ** (1 - alpha)


def awq_scale(stack: Tensor, inputs: Inputs, formats: tuple[str | Format, ...]) -> Tensor:
    """The factors mean|x|^α, α in 0, 0.1, ... 1, whose rounded weight changes the outputs least. -> (k,).

    α = 0 is plain rounding, so the outputs of the calibration inputs never get worse.
    """
    size = inputs.mean.clamp(min=LEAST)
    candidates = [size**alpha for alpha in ALPHAS]
    # Their overall size does not matter to a power-of-two scale; near 1, it does not to others either.
    candidates = [s / (s.max() * s.min()).sqrt() for s in candidates]
    losses = [output_error(round_to(stack * s, formats) / s - stack, inputs) for s in candidates]
    return candidates[int(torch.stack(losses).argmin())]


def output_error(change: Tensor, inputs: Inputs) -> Tensor:
    """Σ_t |D x_t|² over the calibration tokens, for a change D of a weight. (e, n, k) -> ()."""
    return torch.einsum("enk,ekl,enl->", change.float(), inputs.second_moment, change.float())
