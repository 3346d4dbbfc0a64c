"""The numbers of a V4.1 model, under the names of its published config.json.

A value of its own beside `ModelConfig`: V4's counting must not read it by mistake. What the two models
share, V4's modules read through `as_v4`.

Source: config.json of DeepSeek-V4.1-Flash; its report (arXiv 2609.19969), section 4.2.1.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from workbench.config import SWA, RopeScaling
from workbench.model.v4_config import V4Config

FOLDER = Path(__file__).parents[2] / "data" / "configs" / "v41"

Mode = Literal["window", "full", "reindex", "reuse"]


@dataclass(frozen=True, kw_only=True)
class V41Config:
    """A checked V4.1 configuration.

    `compress_ratios` has one number a layer and one for each draft block: 0 is a window only, m pools m
    tokens into an entry. The first half of the layers is the encoder. A layer of `kv_source_layer_ids`
    owns entries, one of `index_source_layer_ids` selects anew, all others read what the last such layer
    left. `engram_compressed_vocab_size` counts the ids that remain once texts are normalised.

    Raises:
        ValueError: a number breaks a rule; the message names it and the remedy.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int
    initializer_range: float
    rms_norm_eps: float
    eos_token_id: int
    image_token_id: int

    # attention
    num_attention_heads: int
    head_dim: int
    q_lora_rank: int
    qk_rope_head_dim: int
    o_groups: int
    o_lora_rank: int
    sliding_window: int
    compress_ratios: tuple[int, ...]
    kv_source_layer_ids: tuple[int, ...]
    index_source_layer_ids: tuple[int, ...]
    candidate_source_layer_id: int
    candidate_topk_blocks: int
    candidate_block_size: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    rope_theta: float
    compress_rope_theta: float
    rope_scaling: RopeScaling | None

    # experts
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    routed_scaling_factor: float
    swiglu_limit: float

    # residual streams
    hc_mult: int
    hc_sinkhorn_iters: int
    hc_eps: float

    # n-gram memory
    engram_layer_ids: tuple[int, ...]
    engram_max_ngram_size: int
    engram_vocab_size: int
    engram_n_heads: int
    engram_head_dim: int
    engram_compressed_vocab_size: int
    engram_pad_id: int

    # drafts
    num_nextn_predict_layers: int
    dspark_block_size: int
    dspark_noise_token_id: int
    dspark_target_layer_ids: tuple[int, ...]
    dspark_markov_rank: int
    dspark_n_routed_experts: int
    dspark_num_experts_per_tok: int

    def __post_init__(self) -> None:
        layers, sources = self.num_hidden_layers, self.kv_source_layer_ids
        for name, is_met, rule in (
            ("num_hidden_layers", layers % 2 == 0, "encoder and decoder are halves: use an even number"),
            (
                "compress_ratios",
                len(self.compress_ratios) == layers + self.num_nextn_predict_layers,
                f"it needs an entry for each of {layers} layers and {self.num_nextn_predict_layers} draft "
                f"blocks",
            ),
            ("compress_ratios", not any(self.compress_ratios[layers:]), "draft blocks have 0"),
            (
                "kv_source_layer_ids",
                all(self._has_source(i) for i, ratio in enumerate(self.layer_ratios) if ratio),
                "each compressing layer needs a source of its own ratio at or before it",
            ),
            (
                "kv_source_layer_ids",
                layers // 2 in sources and max(sources, default=0) == layers // 2,
                f"the decoder reads entries of its first layer alone: name layer {layers // 2} last",
            ),
            (
                "index_source_layer_ids",
                set(sources) <= set(self.index_source_layer_ids),
                f"each of kv_source_layer_ids={sources} selects as well: name it here too",
            ),
            (
                "candidate_topk_blocks",
                (self.candidate_topk_blocks - 1) * self.candidate_block_size + 1 >= self.index_topk,
                f"the pool has to hold index_topk={self.index_topk} entries: raise it",
            ),
            (
                "candidate_source_layer_id",
                self.candidate_source_layer_id == layers // 2,
                f"the pool is the decoder's: name layer {layers // 2}",
            ),
            ("o_groups", self.num_attention_heads % self.o_groups == 0, "it must divide num_attention_heads"),
            ("engram_max_ngram_size", self.engram_max_ngram_size >= 2, "an n-gram has 2 tokens or more"),
            (
                "engram_layer_ids",
                max(self.engram_layer_ids, default=0) < layers // 2,
                f"memory is written in the encoder: below layer {layers // 2}",
            ),
            (
                "dspark_target_layer_ids",
                bool(self.dspark_target_layer_ids)
                and layers // 2 <= min(self.dspark_target_layer_ids)
                and max(self.dspark_target_layer_ids) < layers,
                f"drafts read decoder layers: numbers from {layers // 2} to {layers - 1}",
            ),
            ("head_dim", self.qk_rope_head_dim <= self.head_dim, "it holds the rotary channels: raise it"),
            ("index_head_dim", self.qk_rope_head_dim <= self.index_head_dim, "it holds the rotary channels"),
            ("n_shared_experts", self.n_shared_experts == 1, "the modules compute one: set it to 1"),
            (
                "num_experts_per_tok",
                self.num_experts_per_tok <= self.n_routed_experts,
                f"n_routed_experts is {self.n_routed_experts}: lower it",
            ),
        ):
            if not is_met:
                raise ValueError(f"V41Config: {name} is {getattr(self, name)!r}; {rule}")

    @classmethod
    def from_json(cls, path: str | Path) -> "V41Config":
        """Read a file of the fields above; keys that begin with "_" are notes.

        Raises:
            ValueError: a field is missing or unknown, or the constructor refuses a value.
        """
        values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        values = {name: value for name, value in values.items() if not name.startswith("_")}
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            raise ValueError(
                f"V41Config.from_json: {path} lacks {sorted(known - set(values))} and has the unknown "
                f"{sorted(set(values) - known)}; mend its keys"
            )
        if values["rope_scaling"]:
            values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**given)

    def replace(self, **changes: Any) -> "V41Config":
        """A copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    @property
    def layer_ratios(self) -> tuple[int, ...]:
        """Tokens per entry of each layer, 0 where it has a window only."""
        return self.compress_ratios[: self.num_hidden_layers]

    @property
    def attention_types(self) -> tuple[str, ...]:
        """To V4's cache every layer is a window; compressors are added by V4.1's."""
        return (SWA,) * self.num_hidden_layers

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What each layer does about distant tokens."""
        return tuple(self._mode(layer) for layer in range(self.num_hidden_layers))

    def _mode(self, layer: int) -> Mode:
        if not self.layer_ratios[layer]:
            return "window"
        if layer in self.kv_source_layer_ids:
            return "full"
        return "reindex" if layer in self.index_source_layer_ids else "reuse"

    def _has_source(self, layer: int) -> bool:
        earlier = [i for i in self.kv_source_layer_ids if i <= layer]
        return bool(earlier) and self.layer_ratios[earlier[-1]] == self.layer_ratios[layer]

    @property
    def as_v4(self) -> V4Config:
        """This configuration for the modules that V4.1 has in common with V4."""
        return cast(V4Config, self)

    @property
    def draft(self) -> "V41Config":
        """The configuration of the draft blocks: fewer experts."""
        return self.replace(
            n_routed_experts=self.dspark_n_routed_experts,
            num_experts_per_tok=self.dspark_num_experts_per_tok,
        )


def load_v41(name: str = "deepseek-v4.1-flash") -> V41Config:
    """The release, or "tiny-v4.1".

    Raises:
        ValueError: no configuration of that name.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in known:
        raise ValueError(f"load_v41: name {name!r} is unknown; choose one of {known}")
    return V41Config.from_json(FOLDER / f"{name}.json")
