"""The networks of DeepSeek-V3 (and Kimi K2, which has its shape) and DeepSeek-V3.2.

One residual stream; latent attention and a feed-forward in every layer, the first layers' dense. What V4
is compared with: its interface is V4's, its parameter names are those of transformers' `deepseek_v3` and
`deepseek_v32`, with the multi-token-prediction (MTP) modules beside them under `mtp.`.

Source: V3 report (arXiv 2412.19437), section 2; V3.2 report (arXiv 2512.02556), section 2.
Axes: b rows, s tokens, d hidden_size, v vocab_size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workbench.config import ModelConfig
from workbench.model.checks import check_input
from workbench.model.initialise import initialise
from workbench.model.latent.attention import LatentAttention
from workbench.model.latent.cache import LatentCache, LatentState
from workbench.model.latent.experts import LatentMoE, SwiGLU
from workbench.model.latent.latent_config import LatentConfig, latent_config, yarn_magnitudes
from workbench.model.network import Network
from workbench.model.norms import RMSNorm
from workbench.model.rope import RotaryEmbedding


class LatentLayer(nn.Module):
    """x + Attention(norm(x)), then x + FeedForward(norm(x)).

    Shapes: x (b, s, d), rotation (s, r / 2) -> (b, s, d).
    """

    def __init__(self, config: LatentConfig, mlp_type: str):
        super().__init__()
        d, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = LatentAttention(config)
        self.mlp = SwiGLU(d, config.intermediate_size) if mlp_type == "dense" else LatentMoE(config)
        self.input_layernorm = RMSNorm(d, eps)
        self.post_attention_layernorm = RMSNorm(d, eps)

    def forward(self, x: Tensor, rotation: Tensor, past: int = 0, state: LatentState | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, past, state)
        return x + self.mlp(self.post_attention_layernorm(x))


class LatentMTPBlock(LatentLayer):
    """One MTP module: joins a token's hidden state with the next token's embedding, then runs a layer.

        h' = norm(layer(W_eh [norm(embed(id_{t+1})); norm(h_t)]))        lm_head(h') predicts token t+2

    Departs: the report's eq. 21 puts h_t first; the released weights want the embedding first.

    Source: V3 report, section 2.2.
    """

    def __init__(self, config: LatentConfig):
        super().__init__(config, "moe")
        d, eps = config.hidden_size, config.rms_norm_eps
        self.eh_proj = nn.Linear(2 * d, d, bias=False)
        self.enorm = RMSNorm(d, eps)
        self.hnorm = RMSNorm(d, eps)
        self.norm = RMSNorm(d, eps)

    def draft(self, hidden: Tensor, embedded: Tensor, rotation: Tensor) -> Tensor:
        joined = self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(hidden)), dim=-1))
        return self.norm(self(joined, rotation))


class LatentTrunk(nn.Module):
    """Embedding, layers and final norm: input_ids (b, s) -> what lm_head reads (b, s, d)."""

    def __init__(self, config: LatentConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LatentLayer(config, kind) for kind in config.mlp_types)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)
        self.rotary_magnitude = yarn_magnitudes(config)[1]

    def rotation(self, first: int, count: int) -> Tensor:
        """The rotation of `count` tokens from position `first` on, (s, r / 2)."""
        weight = self.embed_tokens.weight
        positions = torch.arange(first, first + count, device=weight.device)
        return self.rotary_emb(positions, "compress", weight.dtype) * self.rotary_magnitude

    def forward(self, input_ids: Tensor, cache: LatentCache | None = None) -> Tensor:
        past = cache.length if cache else 0
        rotation = self.rotation(past, input_ids.shape[1])
        x = self.embed_tokens(input_ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, rotation, past, cache.layers[i] if cache else None)
        return self.norm(x)


class LatentTransformer(Network):
    """A V3, Kimi K2 or V3.2 model for a configuration, with fresh weights.

    `model(input_ids)` gives the logits of the next token at every position. With a cache, it continues
    the rows that the cache holds; such a pass carries no gradient.

    Args:
        generator: draws the first weights; the global generator if None.

    Raises:
        ValueError: the configuration is of another family, or has what V3's modules do not compute.
    """

    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.latent = latent = latent_config(config)
        self.model = LatentTrunk(latent)
        self.lm_head = nn.Linear(latent.hidden_size, latent.vocab_size, bias=False)
        self.mtp = nn.ModuleList(LatentMTPBlock(latent) for _ in range(latent.num_nextn_predict_layers))
        if self.device.type != "meta":
            initialise(self, latent.initializer_range, generator)

    def forward(self, input_ids: Tensor, *, cache: LatentCache | None = None) -> Tensor:
        """Logits of the next token at every position.

        Shapes: input_ids (b, s) -> (b, s, v).
        Raises:
            ValueError: ids that are no (b, s) of vocabulary numbers, or more rows or tokens than the
                configuration or the cache holds.
        """
        check_input(self.latent, input_ids)
        if cache is None:
            return self.lm_head(self.model(input_ids))
        cache.prepare(*input_ids.shape)
        with torch.no_grad():
            logits = self.lm_head(self.model(input_ids, cache))
        cache.length += input_ids.shape[1]
        return logits

    def draft(self, hidden: Tensor, next_ids: Tensor, block: int = 0) -> Tensor:
        """What lm_head reads to predict the token after next_ids, by an MTP block.

        `hidden` is what `model.model(input_ids)` gives, or what the block before this one gave; next_ids
        are the tokens one (two, ...) after those it belongs to.

        Shapes: hidden (b, s, d), next_ids (b, s) -> (b, s, d).
        Raises:
            ValueError: the model has no such block.
        """
        if block >= len(self.mtp):
            raise ValueError(
                f"LatentTransformer.draft: got MTP block {block}; the model has {len(self.mtp)}; choose a "
                f"configuration with num_nextn_predict_layers >= {block + 1}"
            )
        rotation = self.model.rotation(0, next_ids.shape[1])
        module = self.mtp[block]
        assert isinstance(module, LatentMTPBlock)
        return module.draft(hidden, self.model.embed_tokens(next_ids), rotation)

    def new_cache(self, batch_size: int, max_tokens: int) -> LatentCache:
        """An empty memory for rows of up to max_tokens tokens, taken at once.

        Raises:
            ValueError: max_tokens exceeds max_position_embeddings.
        """
        return LatentCache(self.latent, batch_size, max_tokens, self.dtype, self.device)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in torch. A state dict without any `mtp.` tensor leaves the MTP modules as they are:
        transformers' own has none."""
        if not any(name.startswith("mtp.") for name in state_dict):
            own = {f"mtp.{name}": tensor for name, tensor in self.mtp.state_dict().items()}
            state_dict = {**state_dict, **own}
        return super().load_state_dict(state_dict, strict, assign)
