"""DSpark, the draft of V4.1: a block of tokens guessed at once, made into a sentence one by one.

    m_t = norm(W_main [X̄ of the target layers at t])                  for tokens t <= p, X̄ the streams' mean
    slots: the token at p + 1, which the target has just drawn, then noise; positions p + 1, p + 2, ...
    keys: of m_t by each block's own projection, for the last sliding_window tokens; of all slots, both ways
    logits_i = lm_head(norm(y_i)) + W_r E_r[token before]             for the token at p + 2 + i
    confidence_i = w · [y_i; E_r[token before]]

One pass guesses all slots, so slot i does not know what slot i - 1 became. The Markov head, a table of rank
dspark_markov_rank, is all that tells it, and all that runs token by token.

Source: DeepSpec repository (June 2026), "Confidence-Scheduled Speculative Decoding with Semi-Autoregressive
Generation"; V4.1-Flash, released inference code. Open: one training port labels slot i with the token at
p + 1 + i. Here labels are as the inference code samples.
Axes: b rows, i slots, t context tokens, h heads, c head_dim, d hidden_size, r Markov rank, v vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from workbench.config import SWA
from workbench.model.attention import Attention
from workbench.model.experts import MoE
from workbench.model.hyper_connections import collapse, leave
from workbench.model.norms import RMSNorm
from workbench.model.rope import RotaryEmbedding, rotate
from workbench.model.sampling import Sampling, draw
from workbench.model.v41.layer import SinglePassConnection
from workbench.model.v41.v41_config import V41Config


class Context(NamedTuple):
    """What the draft knows of the text: features m (b, t, d) of its last tokens, and where they end.

    `position` (b,) is that of the last; `is_missing` (b, t) marks places before the text's first token.
    """

    features: Tensor
    position: Tensor
    is_missing: Tensor


class DraftAttention(Attention):
    """V4's window attention between slots, which see each other both ways and the context's keys."""

    def keys(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(b, t, d) -> (b, t, c)."""
        return rotate(self.kv_norm(self.kv_proj(x)), rotation)

    def draft(self, x: Tensor, rotation: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """x (b, i, d), context (b, t, c), bias (b, 1, 1, t + i) -> (b, i, d)."""
        q = self.q_b_proj(self.q_a_norm(self.q_a_proj(x))).unflatten(-1, (self.heads, -1))
        q = rotate(q * q.shape[-1] ** -0.5, rotation.unsqueeze(2))
        keys = rearrange(torch.cat((context, self.keys(x, rotation)), dim=1), "b t c -> b 1 c t")
        o = rotate(self.core(q, keys, bias, None, None, self.sinks)[0], rotation.conj().unsqueeze(2))
        return self.o_b_proj(self.o_a_proj(o.flatten(2)))


class DraftBlock(nn.Module):
    """A V4.1 layer of the draft: fewer experts, no compression, no picture bias."""

    def __init__(self, config: V41Config):
        super().__init__()
        v4, d, eps = config.draft.as_v4, config.hidden_size, config.rms_norm_eps
        self.self_attn = DraftAttention(v4, SWA, 0)
        self.mlp = MoE(v4, "moe")
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(d, eps), RMSNorm(d, eps)
        self.attn_hc, self.ffn_hc = SinglePassConnection(v4), SinglePassConnection(v4)

    def forward(
        self, streams: Tensor, pre: Tensor, rotation: Tensor, context: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        mixing, x, mixed = self.attn_hc(streams, pre)
        y = self.self_attn.draft(self.input_layernorm(x), rotation, context, bias)
        streams, pre = leave(mixed, y, mixing.post), mixing.pre
        mixing, x, mixed = self.ffn_hc(streams, pre)
        # No draft router asks for ids.
        y = self.mlp(self.post_attention_layernorm(x), x.new_zeros(x.shape[:2], dtype=torch.long))
        return leave(mixed, y, mixing.post), mixing.pre


class DSpark(nn.Module):
    """The draft. It borrows the model's embedding and head, and is trained with both frozen."""

    def __init__(self, config: V41Config):
        super().__init__()
        self.config = config
        d, r, eps = config.hidden_size, config.dspark_markov_rank, config.rms_norm_eps
        self.main_proj = nn.Linear(len(config.dspark_target_layer_ids) * d, d, bias=False)
        self.main_norm = RMSNorm(d, eps)
        self.blocks = nn.ModuleList(DraftBlock(config) for _ in range(config.num_nextn_predict_layers))
        self.norm = RMSNorm(d, eps)
        self.markov_embed = nn.Embedding(config.vocab_size, r)
        self.markov_proj = nn.Linear(r, config.vocab_size, bias=False)
        self.confidence_proj = nn.Linear(d + r, 1, bias=False)
        self.rotary_emb = RotaryEmbedding(config.as_v4)

    def context(self, targets: Tensor, position: Tensor) -> Context:
        """The last sliding_window tokens' features, from those of tokens up to `position` (b,).

        Shapes: targets (b, s, l·d), of tokens position - s + 1 .. position.
        """
        m = self.main_norm(self.main_proj(targets[:, -self.config.sliding_window :]))
        places = position[:, None] + torch.arange(1 - m.shape[1], 1, device=m.device)
        return Context(m, position, places < 0)

    def forward(self, context: Context, first_ids: Tensor, embed: nn.Embedding) -> Tensor:
        """What the slots hold after the blocks, the first of them a token that follows the context.

        Shapes: first_ids (b,) -> (b, i, d).
        """
        slots = self.config.dspark_block_size
        ids = first_ids.new_full((len(first_ids), slots), self.config.dspark_noise_token_id)
        ids[:, 0] = first_ids
        streams = repeat(embed(ids), "b i d -> b i n d", n=self.config.hc_mult).contiguous()
        pre = streams.new_zeros(streams.shape[:3], dtype=torch.float32)
        pre[..., 0] = 1
        m, dtype = context.features, context.features.dtype
        back = torch.arange(1 - m.shape[1], slots + 1, device=m.device)
        rotation = self.rotary_emb((context.position[:, None] + back), "main", dtype)
        before, here = rotation.split([m.shape[1], slots], dim=1)
        hidden = F.pad(context.is_missing, (0, slots))
        bias = torch.zeros(hidden.shape, dtype=dtype, device=m.device).masked_fill(hidden, -torch.inf)
        bias = rearrange(bias, "b t -> b 1 1 t")
        for block in self.blocks:
            assert isinstance(block, DraftBlock)
            streams, pre = block(streams, pre, here, block.self_attn.keys(m, before), bias)
        return collapse(streams, pre)

    def logits(self, y: Tensor, previous: Tensor, head: nn.Linear, *, markov: bool = True) -> Tensor:
        """Each slot's logits given the token before its own: y (b, i, d), previous (b, i) -> (b, i, v)."""
        logits = head(self.norm(y))
        return logits + self.markov_proj(self.markov_embed(previous)) if markov else logits

    def confidence(self, y: Tensor, previous: Tensor) -> Tensor:
        """The logit of each slot's chance to be accepted, if those before it were, in fp32: (b, i)."""
        known = torch.cat((y.float(), self.markov_embed(previous).float()), dim=-1)
        return F.linear(known, self.confidence_proj.weight.float()).squeeze(-1)

    def sample(
        self,
        y: Tensor,
        first_ids: Tensor,
        head: nn.Linear,
        sampling: Sampling,
        uniforms: Tensor,
        *,
        markov: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the slots one after the other; each knows the token drawn before it.

        Shapes: y (b, i, d), first_ids (b,), uniforms (b, i) -> tokens (b, i), the distributions that they
            were drawn from (b, i, v), confidences (b, i).
        """
        tokens, q, sure, before = [], [], [], first_ids
        for i in range(y.shape[1]):
            slot, previous = y[:, i : i + 1], before[:, None]
            q.append(sampling.probabilities(self.logits(slot, previous, head, markov=markov))[:, 0])
            sure.append(self.confidence(slot, previous)[:, 0])
            before = draw(q[-1], uniforms[:, i])
            tokens.append(before)
        return torch.stack(tokens, dim=1), torch.stack(q, dim=1), torch.stack(sure, dim=1)
