"""One decoder layer: attention, then experts, each between a collapse and an expansion of the streams."""

from torch import Tensor, nn

from workbench.model.attention import Attention
from workbench.model.cache import LayerState
from workbench.model.experts import MoE
from workbench.model.hyper_connections import HyperConnection, leave
from workbench.model.layout import Layout
from workbench.model.norms import RMSNorm
from workbench.model.v4_config import V4Config


class DecoderLayer(nn.Module):
    """X -> mix(X, Attention(norm(collapse X))) -> mix(X, MoE(norm(collapse X))).

    Shapes: streams (b, s, n, d), input_ids (b, s) -> (b, s, n, d).
    Source: V4 report, sections 2.1-2.3; module names of transformers.
    """

    def __init__(self, config: V4Config, layer_type: str, ratio: int, mlp_type: str):
        super().__init__()
        self.self_attn = Attention(config, layer_type, ratio)
        self.mlp = MoE(config, mlp_type)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn_hc = HyperConnection(config)
        self.ffn_hc = HyperConnection(config)

    def forward(
        self, streams: Tensor, input_ids: Tensor, layout: Layout, state: LayerState | None = None
    ) -> Tensor:
        mixing, x, mixed = self.attn_hc(streams)
        y = self.self_attn(self.input_layernorm(x), layout, state)
        streams = leave(mixed, y, mixing.post)
        mixing, x, mixed = self.ffn_hc(streams)
        y = self.mlp(self.post_attention_layernorm(x), input_ids)
        return leave(mixed, y, mixing.post)
