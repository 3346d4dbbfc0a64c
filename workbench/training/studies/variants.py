"""One tiny V4, and everything that is changed about it: one thing at a time.

The base is a V4 of three layers, one of each kind of attention, the first with hash routing, trained by the
report's Muon with its two balance rules, the bias in larger steps. A variant names what differs. Those marked
`equal_flop` take as many steps as the base's floating-point operations buy.

Report: section 2. CSA is compressed sparse attention, HCA heavily compressed attention, MTP multi-token
prediction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from workbench.accounting import flop_per_prefill
from workbench.config import CSA, HCA, SWA, ModelConfig, load_config
from workbench.model import Transformer
from workbench.training.parameter_groups import make_optimizers
from workbench.training.studies.switches import (
    hyper_connections,
    plain_queries_and_entries,
    plain_residuals,
    sigmoid_gates,
)

RATE = 1.6e-2
BIAS_STEP = 1e-2  # ten times the report's: a run here has a thousandth of its steps
ROW_TOKENS = 128
WINDOW = 16


def base_config(vocab_size: int) -> ModelConfig:
    """A V4 of a third of a million parameters, with rows of 128 tokens in mind.

    `index_topk` is as large as there are entries: CSA layers read all of them, as in the report's first
    phase. Selection is the subject of the studies of stages and contexts.
    """
    return load_config("mini").replace(
        vocab_size=vocab_size, hidden_size=64, num_hidden_layers=3, num_nextn_predict_layers=0,
        layer_types=(SWA, CSA, HCA), compress_ratios=(0, 4, 16), num_hash_layers=1, sliding_window=WINDOW,
        num_attention_heads=4, head_dim=32, qk_rope_head_dim=8, q_lora_rank=32, o_lora_rank=16, o_groups=2,
        index_n_heads=4, index_head_dim=16, index_topk=ROW_TOKENS // 4, n_routed_experts=8,
        num_experts_per_tok=2, moe_intermediate_size=32, initializer_range=0.06,
    )  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What differs from the base.

    Args:
        config: fields of the configuration.
        recipe: fields of the training recipe.
        switch: changes the fresh model in place.
        optimizer, rate: what trains it, at which peak rate.
        equal_flop: whether it trains for the base's floating-point operations instead of its steps.
        watches_logits: whether the largest attention logit of each stretch of steps is noted.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    switch: Callable[[Transformer], None] | None = None
    optimizer: Literal["muon", "adamw"] = "muon"
    rate: float = RATE
    equal_flop: bool = False
    watches_logits: bool = False


def _layers(kind: str, ratio: int) -> dict[str, Any]:
    """The first layer keeps its window, the other two are of one kind."""
    return {"layer_types": (SWA, kind, kind), "compress_ratios": (0, ratio, ratio)}


# Every layer's window covers a whole row: dense attention over tokens, the rest of the network as it is.
DENSE = {"layer_types": (SWA,) * 3, "compress_ratios": (0,) * 3, "sliding_window": ROW_TOKENS}
MUON_RATES = (8e-3, 1.6e-2, 3.2e-2)
ADAMW_RATES = (4e-3, 8e-3, 1.6e-2)
FAST = 4 * RATE

ATTENTIONS: dict[str, Variant] = {
    "base": Variant(watches_logits=True),
    "dense": Variant(DENSE, equal_flop=True),
    "CSA only": Variant(_layers(CSA, 4), equal_flop=True),
    "HCA only": Variant(_layers(HCA, 16), equal_flop=True),
    "no window": Variant({"sliding_window": 1}),
}
"""Trained on text and on the synthetic suites."""

VARIANTS: dict[str, Variant] = {
    **ATTENTIONS,
    "sigmoid gate": Variant(switch=sigmoid_gates),
    "no hash layer": Variant({"num_hash_layers": 0}),
    "no balancing": Variant(recipe={"bias_step": 0.0, "balance_weight": 0.0}),
    "bias step 0.001": Variant(recipe={"bias_step": 1e-3}),
    "auxiliary loss": Variant(recipe={"bias_step": 0.0, "balance_weight": 1e-2}),
    "with MTP": Variant({"num_nextn_predict_layers": 1, "compress_ratios": (0, 4, 16, 0)}),
    "plain residual": Variant({"hc_mult": 1}, switch=plain_residuals, equal_flop=True),
    "hyper-connections": Variant(switch=hyper_connections),
    "fast": Variant(rate=FAST, watches_logits=True),
    "fast, no norms": Variant(rate=FAST, switch=plain_queries_and_entries, watches_logits=True),
    **{f"Muon {rate:g}": Variant(rate=rate) for rate in MUON_RATES if rate != RATE},
    **{f"AdamW {rate:g}": Variant(optimizer="adamw", rate=rate) for rate in ADAMW_RATES},
}
"""Trained on text."""


def build(variant: Variant, vocab_size: int, seed: int) -> Transformer:
    """A fresh network; a seed gives the same weights up to the first tensor that a variant has otherwise."""
    config = base_config(vocab_size).replace(**variant.config)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    if variant.switch is not None:
        variant.switch(model)
    return model


def row_flop(config: ModelConfig) -> float:
    """What reading a row of 128 tokens costs, by the accounting; MTP blocks left out."""
    return float(flop_per_prefill(config, ROW_TOKENS))


def steps_of(variant: Variant, config: ModelConfig, base: ModelConfig, steps: int) -> int:
    """The steps that a variant of this configuration takes where the base takes `steps`."""
    return round(steps * row_flop(base) / row_flop(config)) if variant.equal_flop else steps


def optimizers(variant: Variant, model: Transformer) -> list[torch.optim.Optimizer]:
    """The report's Muon and AdamW, or AdamW with the same constants for everything."""
    if variant.optimizer == "muon":
        return make_optimizers(model, variant.rate)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [torch.optim.AdamW(trained, lr=variant.rate, betas=(0.9, 0.95), eps=1e-20, weight_decay=0.1)]
