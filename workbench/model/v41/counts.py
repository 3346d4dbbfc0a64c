"""What a V4.1 configuration costs: parameters by part, cache bytes a token, work of a prompt.

Parameters are those of the modules themselves, built without memory. A token of a prompt passes the encoder
and the projections that give the decoder its entries; a written token passes everything.

Source: V4.1-Flash report (arXiv 2609.19969) for what is counted as active: neither the embedding, nor the
tables of the memory, nor the draft.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from workbench.accounting.flop import clipped_sum
from workbench.accounting.kv_cache import FORMATS
from workbench.model.v41.transformer import V41Transformer
from workbench.model.v41.v41_config import V41Config

# The first word that a parameter's name contains says which part it belongs to.
PARTS = {
    "mtp.": "draft",
    "engram.embedding": "memory tables",
    "engram.": "memory projections",
    "embed_tokens": "embedding",
    "lm_head": "head",
    "mlp.experts": "routed experts",
    "mlp.": "shared experts and routers",
    "index_k_": "indexers",
    "chooser": "indexers",
    "self_attn": "attention",
    "_hc.": "residual mixing",
    "": "norms",
}
MEMORY = ("memory tables", "memory projections")
INACTIVE = ("draft", "embedding", *MEMORY)


@dataclass(frozen=True)
class Weights:
    """The parameters of one tensor: how many, how many a token uses, and whether they multiply it."""

    name: str
    part: str
    layer: int | None
    total: int
    active: int
    is_matmul: bool


@lru_cache(maxsize=8)
def weights(config: V41Config) -> tuple[Weights, ...]:
    """Every parameter tensor of the model."""
    with torch.device("meta"):
        model = V41Transformer(config)
    rows = []
    for name, tensor in model.named_parameters():
        part = next(part for word, part in PARTS.items() if word in name)
        chosen, all_of = config.num_experts_per_tok, config.n_routed_experts
        if part == "draft":
            chosen, all_of = config.dspark_num_experts_per_tok, config.dspark_n_routed_experts
        active = tensor.numel() // all_of * chosen if "mlp.experts" in name else tensor.numel()
        if part in ("embedding", "memory tables"):
            active = 0
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else None
        is_matmul = tensor.ndim > 1 and active > 0 and not name.endswith(("q_weight", "k_weight"))
        rows.append(Weights(name, part, layer, tensor.numel(), active, is_matmul))
    return tuple(rows)


def parameters(config: V41Config) -> dict[str, int]:
    """How many there are, part by part."""
    totals = dict.fromkeys(PARTS.values(), 0)
    for row in weights(config):
        totals[row.part] += row.total
    return totals


def backbone(config: V41Config) -> int:
    """All parameters but the memory's and the draft's."""
    return sum(n for part, n in parameters(config).items() if part not in (*MEMORY, "draft"))


def active(config: V41Config, phase: str, *, memory: bool = False) -> int:
    """Parameters that one token of "prefill" or "decode" passes; `memory` adds its projections.

    Raises:
        ValueError: another phase.
    """
    if phase not in ("prefill", "decode"):
        raise ValueError(f"active: phase is {phase!r}; choose 'prefill' or 'decode'")
    return sum(row.active for row in weights(config) if _is_passed(row, config, phase, memory))


def _is_passed(row: Weights, config: V41Config, phase: str, memory: bool) -> bool:
    if row.part in INACTIVE and not (memory and row.part == "memory projections"):
        return False
    if phase == "decode":
        return True
    half = config.num_hidden_layers // 2
    is_entry = ".source." in row.name and row.layer == half
    return row.layer is not None and (row.layer < half or is_entry)


def cache_bytes_per_token(config: V41Config) -> float:
    """Bytes of entries and index keys that a token of context adds, in FP4; windows do not grow."""
    stored = FORMATS["fp4_v4.1"]
    entry = stored.entry.entry_bytes(config.head_dim) + stored.index_key.entry_bytes(config.index_head_dim)
    return sum(entry / config.layer_ratios[layer] for layer in config.kv_source_layer_ids)


def prefill_flop(config: V41Config, tokens: npt.ArrayLike, *, replay: int | None = None) -> np.ndarray:
    """Floating-point operations to read a prompt, two per multiply-add, every format alike.

    The last `replay` tokens pass the decoder: sliding_window by default. `replay` as long as the prompt is
    what a model without encoder and decoder would do. Norms, softmax and rotations count for nothing; the
    head, which a prompt needs once, is left out.

    Shapes: tokens () or (n,) -> the same.
    """
    n = np.asarray(tokens, dtype=np.float64)
    kept = np.minimum(n, config.sliding_window if replay is None else replay)
    half = config.num_hidden_layers // 2
    linear = {
        row.name: row.active
        for row in weights(config)
        if row.is_matmul and _is_passed(row, config, "decode", True) and row.part != "head"
    }
    everywhere = sum(
        row.active
        for row in weights(config)
        if row.name in linear and _is_passed(row, config, "prefill", True)
    )
    total = 2 * everywhere * n + 2 * (sum(linear.values()) - everywhere) * kept
    core = 4 * config.num_attention_heads * config.head_dim
    index = 2 * config.index_n_heads * config.index_head_dim
    for layer, ratio in enumerate(config.layer_ratios):
        # Queries first + 1 .. n of the layer, as sums over all of n minus those of the first.
        first = np.zeros_like(n) if layer < half else n - kept
        for sign, end in ((1, n), (-1, first)):
            total = total + sign * core * clipped_sum(end, 1, config.sliding_window)
            if ratio:
                total = total + sign * core * clipped_sum(end, ratio, config.index_topk)
            if layer in config.index_source_layer_ids:
                total = total + sign * index * clipped_sum(end, ratio, np.inf)
    return total


def layer_rows(config: V41Config) -> list[dict[str, object]]:
    """Layer by layer: whose entries it reads and whose selection, and what else sits there.

    {"layer", "is_encoder", "mode", "ratio", "entries", "selection", "has_memory", "feeds_draft"}; entries
    and selection are numbers of layers, None for a window alone.
    """

    def last(sources: tuple[int, ...], layer: int) -> int | None:
        return max(i for i in sources if i <= layer) if config.layer_ratios[layer] else None

    return [
        {
            "layer": layer,
            "is_encoder": layer < config.num_hidden_layers // 2,
            "mode": mode,
            "ratio": config.layer_ratios[layer],
            "entries": last(config.kv_source_layer_ids, layer),
            "selection": last(config.index_source_layer_ids, layer),
            "has_memory": layer in config.engram_layer_ids,
            "feeds_draft": layer in config.dspark_target_layer_ids,
        }
        for layer, mode in enumerate(config.modes)
    ]
