"""What every language model here has in common: a head, whose weights tell device and dtype."""

import torch
from torch import nn


class Network(nn.Module):
    """A module with an `lm_head`."""

    lm_head: nn.Linear

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the linear weights: norms and residual mixing stay fp32."""
        return self.lm_head.weight.dtype
