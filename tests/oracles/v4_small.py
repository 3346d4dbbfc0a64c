"""Small V4 models whose weights exercise everything, for tests of their parts."""

import torch
from torch import Tensor, nn

from workbench.config import CSA, HCA, SWA, ModelConfig, load_config
from workbench.model import Transformer

KINDS = (SWA, CSA, HCA)


def small_config(**changes) -> ModelConfig:
    """Odd and different sizes: hidden 28, 3 heads of 10, 2 streams more than experts chosen."""
    values = dict(
        num_hidden_layers=4,
        layer_types=(SWA, HCA, CSA, CSA),
        compress_ratios=(0, 6, 4, 4, 0),
        num_nextn_predict_layers=1,
        hidden_size=28,
        num_attention_heads=6,
        o_groups=3,
        o_lora_rank=7,
        head_dim=10,
        qk_rope_head_dim=4,
        q_lora_rank=11,
        sliding_window=5,
        # Fewer index heads make exact ties at score zero.
        index_n_heads=16,
        index_head_dim=8,
        index_topk=3,
        n_routed_experts=5,
        num_experts_per_tok=2,
        moe_intermediate_size=9,
        num_hash_layers=1,
        hc_mult=3,
        vocab_size=61,
        swiglu_limit=0.7,
    )
    return load_config("tiny").replace(**{**values, **changes})


@torch.no_grad()
def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep the size of a vector; norms, scales, biases and sinks away from 0 and 1."""
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():  # tables of ids
            continue
        draw = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("norm.weight", "scale")):
            tensor.copy_(1 + 0.2 * draw)
        elif tensor.ndim == 1 or name.endswith("position_bias"):
            tensor.copy_(0.5 * draw)
        else:
            tensor.copy_(draw / tensor.shape[-1] ** 0.5)


def small_model(seed: int = 0, **changes) -> tuple[Transformer, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(small_config(**changes), generator=generator)
    randomise(model, generator)
    return model, generator


def random_ids(model: Transformer, generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(model.v4.vocab_size, shape, generator=generator)


def double_weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors in float64, for the oracles."""
    return {name: tensor.double() for name, tensor in module.state_dict().items()}
