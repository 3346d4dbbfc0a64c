"""Model configurations: the published config.json as one frozen, checked value.

Field names are those of the published files, so a released config.json loads as it is. Each
`model_type` needs its own set of fields; the others stay None.

Source: config.json of each release; V4 report, section 4.2.1.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.config_rules import (
    CSA,
    HCA,
    RATIO_TYPES,
    REQUIRED,
    SWA,
    check_common,
    check_v4,
    coerce,
    require,
    unknown,
)

__all__ = ["CSA", "HCA", "SWA", "ModelConfig", "QuantizationConfig", "RopeScaling", "load_config", "presets"]

CONFIG_FOLDER = Path(__file__).parent / "data" / "configs"

# Keys of published files that say nothing about the function the model computes.
_BOOKKEEPING = frozenset(
    "architectures auto_map transformers_version use_cache ep_size pretraining_tp seq_aux aux_loss_alpha "
    "max_window_layers use_sliding_window output_router_logits router_aux_loss_coef router_jitter_noise "
    "dtype id2label label2id return_dict output_hidden_states output_attentions is_encoder_decoder "
    "chunk_size_feed_forward problem_type pad_token_id partial_rotary_factor mlp_layer_types "
    "default_theta mlp_bias".split()
)


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How the rotary frequencies are stretched past the trained context (YaRN, or Llama 3's rule)."""

    type: str
    factor: float
    original_max_position_embeddings: int
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """How the released linear weights are stored: FP8 blocks and the format of their scales."""

    quant_method: str
    fmt: str
    activation_scheme: str
    weight_block_size: tuple[int, ...]
    scale_fmt: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model's hyper-parameters, under the names of its published config.json.

    `compress_ratios` has one entry a layer, and may have one more for each multi-token-prediction
    (MTP) block: 0 is a sliding window only, 4 compressed sparse attention (CSA), 128 heavily
    compressed attention (HCA). Any other ratio needs `layer_types` to say which of the two it is.

    Raises:
        ValueError: a field that the model type needs is missing, has the wrong type, or breaks a rule;
            the message names the field, its value and the remedy.
    Source: config.json of the releases; V4 report, section 4.2.1.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int

    # attention
    head_dim: int | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    q_lora_rank: int | None = None
    kv_lora_rank: int | None = None
    qk_nope_head_dim: int | None = None
    qk_rope_head_dim: int | None = None
    v_head_dim: int | None = None
    o_groups: int | None = None
    o_lora_rank: int | None = None
    sliding_window: int | None = None
    compress_ratios: tuple[int, ...] | None = None
    layer_types: tuple[str, ...] | None = None
    index_n_heads: int | None = None
    index_head_dim: int | None = None
    index_topk: int | None = None

    # positions
    max_position_embeddings: int | None = None
    rope_theta: float = 10000.0
    compress_rope_theta: float | None = None
    rope_scaling: RopeScaling | None = None

    # feed-forward
    hidden_act: str = "silu"
    intermediate_size: int | None = None
    moe_intermediate_size: int | None = None
    n_routed_experts: int | None = None
    n_shared_experts: int = 0
    num_experts_per_tok: int | None = None
    num_hash_layers: int = 0
    first_k_dense_replace: int = 0
    moe_layer_freq: int = 1
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    n_group: int | None = None
    topk_group: int | None = None
    topk_method: str | None = None
    scoring_func: str = "softmax"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    swiglu_limit: float | None = None

    # residual streams
    hc_mult: int | None = None
    hc_sinkhorn_iters: int | None = None
    hc_eps: float | None = None

    # the rest
    num_nextn_predict_layers: int = 0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    torch_dtype: str = "bfloat16"
    expert_dtype: str | None = None
    quantization_config: QuantizationConfig | None = None

    def __post_init__(self) -> None:
        require(
            self.model_type, {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        )
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, coerce(ModelConfig, field.name, getattr(self, field.name)))
        check_common(self)
        if self.model_type == "deepseek_v4":
            check_v4(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read the keys of a published config.json; keys that no model here uses raise a warning.

        Raises:
            ValueError: as the constructor.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {k: v for k, v in _from_transformers(values).items() if not k.startswith("_")}
        if "model_type" not in values:
            raise ValueError(f"ModelConfig: model_type missing; set it to one of {sorted(REQUIRED)}")
        unused = sorted(set(values) - known - _BOOKKEEPING)
        if unused:
            hints = {name: difflib.get_close_matches(name, known, 1) for name in unused}
            listed = ", ".join(f"{n} (did you mean {h[0]}?)" if h else n for n, h in hints.items())
            warnings.warn(f"ModelConfig.from_dict: keys not used: {listed}", stacklevel=2)
        given = {k: v for k, v in values.items() if k in known}
        require(given["model_type"], given)
        return cls(**given)

    @classmethod
    def from_json(cls, path: str | Path) -> ModelConfig:
        """Read a published config.json file.

        Raises:
            ValueError: the file is absent, is not a JSON object, or the constructor refuses its values.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(
                f"ModelConfig.from_json: cannot read {path}: {error.strerror}; give the path of a config.json"
            ) from error
        except json.JSONDecodeError as error:
            raise ValueError(
                f"ModelConfig.from_json: {path} line {error.lineno} is not JSON ({error.msg}); mend the file"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(
                f"ModelConfig.from_json: {path} holds a {type(values).__name__}; it needs one JSON object"
            )
        return cls.from_dict(values)

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed, checked anew.

        Raises:
            ValueError: an unknown field, or a combination that the constructor refuses.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(unknown("field", name, known))
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The keys and values of a config.json: plain types, fields that are None left out.

        A V4 configuration also carries `compress_rates`, which transformers reads instead of
        `compress_ratios` when a ratio is neither 4 nor 128.
        """
        values: dict[str, Any] = {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in dataclasses.asdict(self).items()
            if v is not None
        }
        for nested in ("rope_scaling", "quantization_config"):
            if nested in values:
                values[nested] = {
                    k: list(v) if isinstance(v, tuple) else v
                    for k, v in values[nested].items()
                    if v is not None
                }
        if self.model_type == "deepseek_v4":
            rates = {
                kind: ratio
                for kind, ratio in zip(self.attention_types, self.layer_ratios, strict=True)
                if ratio
            }
            values["compress_rates"] = {CSA: 4, HCA: 128} | rates
        return values

    @property
    def attention_types(self) -> tuple[str, ...]:
        """The attention of each layer, by transformers' names (MTP blocks left out)."""
        if self.model_type == "deepseek_v4":
            return self.layer_types or tuple(RATIO_TYPES[ratio] for ratio in self.layer_ratios)
        if self.model_type == "deepseek_v32":
            return ("latent_sparse_attention",) * self.num_hidden_layers
        if self.kv_lora_rank is not None:
            return ("latent_attention",) * self.num_hidden_layers
        return ("full_attention",) * self.num_hidden_layers

    @property
    def layer_ratios(self) -> tuple[int, ...]:
        """Tokens per compressed entry of each layer, 0 where nothing is compressed."""
        if self.compress_ratios is None:
            return (0,) * self.num_hidden_layers
        return self.compress_ratios[: self.num_hidden_layers]

    @property
    def mlp_types(self) -> tuple[str, ...]:
        """The feed-forward of each layer: "hash_moe", "moe" or "dense"."""
        if self.n_routed_experts is None:
            return ("dense",) * self.num_hidden_layers

        def kind(layer: int) -> str:
            if layer < self.num_hash_layers:
                return "hash_moe"
            is_dense = (
                layer < self.first_k_dense_replace
                or layer in self.mlp_only_layers
                or layer % self.moe_layer_freq
                or (layer + 1) % self.decoder_sparse_step
            )
            return "dense" if is_dense else "moe"

        return tuple(kind(layer) for layer in range(self.num_hidden_layers))

    @property
    def kv_head_dim(self) -> int:
        """Channels of one key or value head: head_dim, or hidden_size / num_attention_heads."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def presets() -> list[str]:
    """The names that `load_config` knows, sorted."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.json"))


def load_config(name: str) -> ModelConfig:
    """A preset by name: a published release, or `tiny` and `mini`, the workbench's own small V4.

    Raises:
        ValueError: no preset of that name; the message lists the closest.
    """
    if (CONFIG_FOLDER / "v41" / f"{name}.json").is_file():
        raise ValueError(
            f"load_config: {name!r} is a V4.1, which is no ModelConfig; load it with "
            f"workbench.model.load_v41({name!r})"
        )
    if name not in presets():
        raise ValueError(unknown("preset", name, presets()))
    return ModelConfig.from_json(CONFIG_FOLDER / f"{name}.json")


def _from_transformers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undo the renamings under which transformers saves these configurations again."""
    values = dict(values)
    if "num_experts" in values:
        values["n_routed_experts"] = values.pop("num_experts")
    if "dtype" in values:
        values.setdefault("torch_dtype", values.pop("dtype"))
    rope = values.pop("rope_parameters", None)
    if rope:
        main, compress = rope.get("main", rope), rope.get("compress")
        values["rope_theta"] = main.get("rope_theta", 10000.0)
        scaled = compress or main
        if compress:
            values["compress_rope_theta"] = compress.get("rope_theta")
        if scaled.get("rope_type", "default") != "default":
            values["rope_scaling"] = scaled
    rates = values.pop("compress_rates", None)
    if rates and "compress_ratios" not in values and "layer_types" in values:
        values["compress_ratios"] = [rates.get(kind, 0) for kind in values["layer_types"]]
    kinds = values.get("mlp_layer_types")
    if kinds and "num_hash_layers" not in values:
        values["num_hash_layers"] = sum(kind == "hash_moe" for kind in kinds)
    if values.get("model_type") == "deepseek_v4" and values.get("qk_rope_head_dim") is None:
        share = values.get("partial_rotary_factor")
        if share and values.get("head_dim"):
            values["qk_rope_head_dim"] = round(share * values["head_dim"])
    return values
