"""A model cut over the processes of a run: weights by FSDP2, experts by process, rows by stretch."""

import warnings
from functools import partial

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from workbench.model import Transformer
from workbench.model.experts import Experts, MoE
from workbench.training.distributed.context_loss import context_loss
from workbench.training.distributed.experts import ParallelExperts
from workbench.training.distributed.process_ranks import ProcessRanks


def shard(model: Transformer, ranks: ProcessRanks) -> Transformer:
    """Cut a model in place; every process gives the same one. Afterwards only `model.loss` may be called.

    Each layer's weights are gathered when it runs and let go after. Gradients are added up over the
    processes, so losses must be shares of a sum, as the loop's are. With n_context above 1 `model.loss`
    takes whole rows and returns this process's part.

    Raises:
        ValueError: the experts do not divide among the processes.
    """
    n_experts = model.v4.n_routed_experts
    if n_experts % ranks.n_ranks:
        raise ValueError(
            f"shard: got {n_experts} routed experts for {ranks.n_ranks} processes; needs a multiple: experts "
            f"are cut between matrices; use another number of processes"
        )
    # FSDP2 warns of outputs that are views: an in-place change of one would lose its hook. We make none.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for moe in [module for module in model.modules() if isinstance(module, MoE)]:
        if ranks.n_expert > 1:
            assert isinstance(moe.experts, Experts)
            moe.experts = ParallelExperts(moe.experts, ranks.experts["experts"])  # type: ignore[assignment]
        fully_shard(moe.experts, mesh=ranks.experts["copies"])
    for layer in model.model.layers:
        fully_shard(layer, mesh=ranks.everyone)
    if ranks.n_context > 1:
        setattr(model, "loss", partial(context_loss, model, ranks.context_group))  # noqa: B010
    fully_shard(model, mesh=ranks.everyone)
    register_fsdp_forward_method(model, "loss")
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    return model


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every weight whole, on the CPU of every process: for models that fit one."""
    return {
        name: (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).cpu()
        for name, tensor in model.state_dict().items()
    }
