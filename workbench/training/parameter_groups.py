"""Which optimiser each parameter of a V4 gets.

The report leaves to AdamW the embedding, the prediction head, the static biases and gating factors of
mHC and the weights of RMSNorm; all else is Muon's. Sinks and position biases are biases too, and where
the report is silent about them we read them so.

Report: section 2.4 and section 4.2.2. mHC is manifold-constrained hyper-connections.
"""

from typing import Any

import torch
from torch import nn

from workbench.model import Transformer
from workbench.training.muon import Muon


def parameter_groups(model: Transformer) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Muon's groups and AdamW's. Muon's say how many independent matrices the rows of a weight stack.

    Every parameter that takes a gradient is in exactly one group; `names` lists what is in a group.
    """
    muon: dict[int, dict[str, Any]] = {}
    adamw: dict[str, Any] = {"params": [], "names": []}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if goes_to_adamw(name, p):
            group = adamw
        else:
            parts = _parts(name, model)
            group = muon.setdefault(parts, {"params": [], "names": [], "parts": parts})
        group["params"].append(p)
        group["names"].append(name)
    return list(muon.values()), [adamw]


def goes_to_adamw(name: str, p: nn.Parameter) -> bool:
    """Vectors, the embedding, the head and position biases."""
    return p.ndim < 2 or name.endswith(("embed_tokens.weight", "lm_head.weight", "position_bias"))


def _parts(name: str, model: Transformer) -> int:
    if name.endswith("experts.gate_up_proj"):
        return 2
    if name.endswith("o_a_proj.weight"):
        return model.v4.o_groups
    return 1


def make_optimizers(
    model: Transformer, lr: float, *, ns_dtype: torch.dtype = torch.float32, muon: type[Muon] = Muon
) -> list[torch.optim.Optimizer]:
    """Muon and AdamW with the report's constants and one learning rate."""
    matrices, adamw = parameter_groups(model)
    return [
        muon(matrices, lr, dtype=ns_dtype),
        torch.optim.AdamW(adamw, lr=lr, betas=(0.9, 0.95), eps=1e-20, weight_decay=0.1),
    ]
