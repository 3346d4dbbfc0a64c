"""A V4 small enough to learn to reason in minutes of one processor core."""

import torch

from workbench.config import ModelConfig, load_config
from workbench.model import Transformer
from workbench.reasoning.vocabulary import BOS, END, VOCABULARY


def policy_config(hidden_size: int = 64, **changes: object) -> ModelConfig:
    """Window, CSA, HCA and CSA layers, two of four experts for a token, mHC: about 0.4M parameters."""
    fields: dict[str, object] = dict(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden_size,
        num_attention_heads=4,
        head_dim=32,
        qk_rope_head_dim=16,
        q_lora_rank=48,
        o_groups=2,
        o_lora_rank=32,
        moe_intermediate_size=hidden_size,
        n_routed_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=4,
        num_hash_layers=1,
        layer_types=[
            "sliding_attention",
            "compressed_sparse_attention",
            "heavily_compressed_attention",
            "compressed_sparse_attention",
        ],
        compress_ratios=[0, 4, 8, 4],
        num_nextn_predict_layers=0,
        hc_mult=2,
        sliding_window=32,
        index_topk=16,
        index_n_heads=4,
        index_head_dim=16,
        max_position_embeddings=512,
        rope_theta=100.0,
        compress_rope_theta=100.0,
        rope_scaling=None,
        swiglu_limit=10.0,
        initializer_range=0.05,
        bos_token_id=VOCABULARY.id(BOS),
        eos_token_id=VOCABULARY.id(END),
    )
    return load_config("tiny").replace(**fields | changes)


def new_policy(seed: int, config: ModelConfig | None = None) -> Transformer:
    """A policy with fresh weights."""
    return Transformer(config or policy_config(), generator=torch.Generator().manual_seed(seed))
