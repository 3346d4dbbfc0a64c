"""The smallest V4 whose matrices hold whole blocks of 32, and a text for it."""

import torch

from workbench.config import CSA, HCA, SWA, ModelConfig, load_config
from workbench.model.transformer import Transformer


def small_config() -> ModelConfig:
    return load_config("mini").replace(
        vocab_size=61, hidden_size=64, num_hidden_layers=3, num_nextn_predict_layers=0,
        layer_types=(SWA, CSA, HCA), compress_ratios=(0, 4, 8), num_hash_layers=1, sliding_window=8,
        num_attention_heads=4, head_dim=48, qk_rope_head_dim=16, q_lora_rank=32, o_groups=2, o_lora_rank=16,
        index_n_heads=3, index_head_dim=32, index_topk=3, n_routed_experts=5, num_experts_per_tok=2,
        moe_intermediate_size=32, initializer_range=0.08,
    )  # fmt: skip


def small_model(seed: int = 0) -> Transformer:
    return Transformer(small_config(), generator=torch.Generator().manual_seed(seed))


def small_text(rows: int = 2, length: int = 37, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 61, (rows, length), generator=torch.Generator().manual_seed(seed))
