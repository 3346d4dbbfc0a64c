"""The loss of a model whose rows are cut over processes: each computes the part of its own tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.model import Transformer
from workbench.model.checks import check_input
from workbench.model.loss import IGNORED, linear_cross_entropy
from workbench.training.distributed.context import ContextLayout, Stretch


def context_loss(
    model: Transformer,
    group: torch.distributed.ProcessGroup,
    input_ids: Tensor,
    *,
    labels: Tensor | None = None,
    sample_ids: Tensor | None = None,
    mtp_weight: float = 0.0,
) -> Tensor:
    """This process's part of `Transformer.loss`: the parts add up to it, and so do their gradients.

    Every process of the group gives the same whole rows.

    Shapes: all (b, p·s) -> ().

    Raises:
        ValueError: as `Transformer.loss`, or rows that cannot be cut so.
    """
    check_input(model.v4, input_ids, sample_ids=sample_ids)
    labels = input_ids if labels is None else labels
    samples = torch.zeros_like(input_ids) if sample_ids is None else sample_ids
    stretch = Stretch(input_ids.shape[1], group)
    layout = ContextLayout(model.model.rotary_emb, samples, model.v4.sliding_window, model.dtype, stretch)

    recompute = model.recompute_activations and torch.is_grad_enabled()
    streams = model.model(stretch.of(input_ids), layout, recompute=recompute)
    loss = _part(model, model.model.collapse(streams), labels, samples, 1, stretch)
    for block in range(len(model.mtp) if mtp_weight else 0):
        next_ids = stretch.of(F.pad(input_ids[:, block + 1 :], (0, block + 1)))
        module = model.mtp_block(block)
        streams = module.draft(streams, model.model.embed_tokens(next_ids), next_ids, layout)
        ahead = _part(model, module.collapse(streams), labels, samples, block + 2, stretch)
        loss = loss + mtp_weight / len(model.mtp) * ahead
    return loss


def _part(
    model: Transformer, x: Tensor, labels: Tensor, samples: Tensor, steps: int, stretch: Stretch
) -> Tensor:
    """The mean loss over the whole rows of predicting the token `steps` later, this process's tokens only."""
    target = labels[:, steps:].masked_fill(samples[:, steps:] != samples[:, :-steps], IGNORED)
    target = F.pad(target, (0, steps), value=IGNORED)
    own = stretch.of(target)
    n_own, n_all = int((own != IGNORED).sum()), int((target != IGNORED).sum())
    if n_own == 0:
        # Not left out: other processes wait for this one in the backward pass.
        return (x.sum() + model.lm_head.weight.sum()) * 0.0
    mean = linear_cross_entropy(x.flatten(0, 1), model.lm_head.weight, own.flatten())
    return mean * (n_own / n_all)
