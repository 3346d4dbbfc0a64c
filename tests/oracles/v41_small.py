"""Small V4.1 models whose weights exercise everything, for tests."""

import torch

from tests.oracles.v4_small import randomise
from workbench.model.v41 import V41Config, V41Transformer, load_v41


def small_config(**changes) -> V41Config:
    """Odd and different sizes: hidden 28, 6 heads of 10, 3 streams."""
    values = dict(
        vocab_size=61,
        hidden_size=28,
        num_attention_heads=6,
        o_groups=3,
        o_lora_rank=7,
        head_dim=10,
        qk_rope_head_dim=4,
        q_lora_rank=11,
        sliding_window=7,
        index_head_dim=8,
        index_topk=3,
        candidate_topk_blocks=2,
        n_routed_experts=5,
        num_experts_per_tok=2,
        moe_intermediate_size=9,
        hc_mult=3,
        swiglu_limit=0.7,
        engram_vocab_size=40,
        engram_head_dim=3,
        engram_compressed_vocab_size=61,
        dspark_noise_token_id=59,
        image_token_id=60,
    )
    return load_v41("tiny-v4.1").replace(**{**values, **changes})


def small_model(seed: int = 0, **changes) -> tuple[V41Transformer, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    vocabulary = changes.pop("vocabulary", None)
    model = V41Transformer(small_config(**changes), vocabulary=vocabulary, generator=generator)
    randomise(model, generator)
    return model, generator
