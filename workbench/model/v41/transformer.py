"""The V4.1 network: a causal encoder, a decoder that reads its entries, a head, and a draft.

Every distant token is seen through entries of the encoder, or of the decoder's first layer, whose input is
the encoder's output. So a prompt needs the decoder only where its windows will be looked at: `read` runs the
encoder on all tokens and replays the last sliding_window of them through the decoder.

Source: V4.1-Flash report (arXiv 2609.19969), causal encoder-decoder (CED).
Axes: b rows, s tokens, n streams, d hidden_size, v vocab_size, l target layers of the draft.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from workbench.model.cache import Cache
from workbench.model.cached_layout import CachedLayout
from workbench.model.checks import check_input
from workbench.model.hyper_connections import collapse
from workbench.model.initialise import initialise
from workbench.model.layout import Layout, PackedLayout
from workbench.model.loss import linear_cross_entropy
from workbench.model.network import Network
from workbench.model.norms import RMSNorm
from workbench.model.rope import RotaryEmbedding
from workbench.model.v41.cache import V41Cache
from workbench.model.v41.csa2 import Far
from workbench.model.v41.dspark import DSpark
from workbench.model.v41.layer import Carry, Tokens, V41Layer
from workbench.model.v41.ngrams import NOTHING, compressed_ids, look_back
from workbench.model.v41.v41_config import V41Config


class V41Trunk(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: V41Config, vocabulary: Sequence[str | None] | None):
        super().__init__()
        self.config, self.n_encoder = config, config.num_hidden_layers // 2
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(V41Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.as_v4)
        ids = range(config.vocab_size) if vocabulary is None else compressed_ids(vocabulary)
        self.compressed_ids: Tensor
        self.register_buffer("compressed_ids", torch.tensor(list(ids)))

    def begin(
        self,
        input_ids: Tensor,
        pictures: Tensor | None = None,
        sample_ids: Tensor | None = None,
        earlier: Tensor | None = None,
    ) -> tuple[Carry, Tokens]:
        """The streams that the first layer reads, n times the embedding, and the first input mix: stream 0.

        Shapes: input_ids, sample_ids (b, s), pictures (picture tokens, d), earlier compressed ids (b, 3).
        """
        x, is_picture = self.embed_tokens(input_ids), input_ids == self.config.image_token_id
        if pictures is not None:
            x = x.masked_scatter(is_picture.unsqueeze(-1), pictures.to(x.dtype))
        streams = repeat(x, "b s d -> b s n d", n=self.config.hc_mult).contiguous()
        pre = streams.new_zeros(streams.shape[:3], dtype=torch.float32)
        pre[..., 0] = 1
        compressed = self.compressed_ids[input_ids].masked_fill(is_picture, NOTHING)
        line = compressed if earlier is None else torch.cat((earlier, compressed), dim=1)
        pad = int(self.compressed_ids[self.config.engram_pad_id])
        ngrams = look_back(line, self.config.engram_max_ngram_size, pad, sample_ids)
        return Carry(streams, pre), Tokens(input_ids, ngrams[:, -input_ids.shape[1] :], is_picture)

    def run(
        self,
        layers: range,
        carry: Carry,
        tokens: Tokens,
        layout: Layout,
        cache: Cache | None = None,
        targets: list[Tensor] | None = None,
    ) -> Carry:
        """Some of the layers; the streams' mean before each target layer is added to `targets`."""
        far = Far()
        for i in layers:
            if targets is not None and i in self.config.dspark_target_layer_ids:
                targets.append(reduce(carry.streams, "b s n d -> b s d", "mean"))
            state = cache.layers[i - layers.start] if cache else None
            carry = self.layers[i](carry, tokens, layout, state, far)
        return carry

    def collapse(self, carry: Carry) -> Tensor:
        """What lm_head reads, by the mix of the last site: (b, s, d)."""
        return self.norm(collapse(*carry))


class V41Transformer(Network):
    """A V4.1 model for a configuration, with fresh weights.

    `model(input_ids)` gives the logits of the next token at every position. Positions with image_token_id
    are taken from `pictures`, in order: no n-gram reaches across them, nothing is written to them, and
    their experts are chosen by a bias of their own.

    Args:
        vocabulary: the text of every token, None for parts of characters: n-grams are looked up by what is
            left of it without case and accents. Without it, by the ids themselves.
        generator: draws the first weights; the global generator if None.
    """

    def __init__(
        self,
        config: V41Config,
        *,
        vocabulary: Sequence[str | None] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if vocabulary is not None and len(vocabulary) != config.vocab_size:
            raise ValueError(
                f"V41Transformer: vocabulary has {len(vocabulary)} texts; vocab_size is {config.vocab_size}; "
                f"give the text of every id"
            )
        self.config = config
        self.model = V41Trunk(config, vocabulary)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.mtp = DSpark(config)
        if self.device.type != "meta":
            initialise(self, config.initializer_range, generator)

    def forward(
        self, input_ids: Tensor, *, sample_ids: Tensor | None = None, pictures: Tensor | None = None
    ) -> Tensor:
        """Logits of the next token at every position, each token through every layer.

        Rows may hold several samples (sample_ids, a run of equal numbers each): nothing crosses from one to
        the next.

        Shapes: input_ids, sample_ids (b, s), pictures (picture tokens, d) -> (b, s, v).
        """
        return self.lm_head(self.hidden(input_ids, sample_ids=sample_ids, pictures=pictures)[0])

    def hidden(
        self, input_ids: Tensor, *, sample_ids: Tensor | None = None, pictures: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What lm_head reads (b, s, d), and what the draft reads (b, s, l·d)."""
        check_input(self.config.as_v4, input_ids, sample_ids=sample_ids)
        trunk, window = self.model, self.config.sliding_window
        if sample_ids is not None:
            layout: Layout = PackedLayout(trunk.rotary_emb, sample_ids, window, self.dtype)
        else:
            positions = torch.arange(input_ids.shape[1], device=self.device)[None]
            layout = Layout(trunk.rotary_emb, positions, len(input_ids), window, self.dtype)
        carry, tokens = trunk.begin(input_ids, pictures, sample_ids)
        targets: list[Tensor] = []
        carry = trunk.run(range(len(trunk.layers)), carry, tokens, layout, targets=targets)
        return trunk.collapse(carry), torch.cat(targets, dim=-1)

    def loss(self, input_ids: Tensor, *, sample_ids: Tensor | None = None) -> Tensor:
        """Next-token cross entropy, averaged over the predicted tokens: (b, s) -> ()."""
        y = rearrange(self.hidden(input_ids, sample_ids=sample_ids)[0][:, :-1], "b s d -> (b s) d")
        target = input_ids[:, 1:]
        if sample_ids is not None:
            target = target.masked_fill(sample_ids[:, 1:] != sample_ids[:, :-1], -100)
        return linear_cross_entropy(y, self.lm_head.weight, target.flatten())

    @torch.no_grad()
    def read(
        self,
        input_ids: Tensor,
        cache: V41Cache,
        *,
        replay: int | None = None,
        pictures: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Read more tokens into a cache: all through the encoder, the last `replay` through the decoder.

        A replayed token's entries are complete, but in the decoder's windows it looks back on no token
        before the first one replayed. So each decoder layer shortens the exact part by sliding_window - 1
        tokens: the last token is exact from (decoder layers)·(sliding_window - 1) + 1 replayed tokens on,
        or where the whole prompt is replayed. With replay=None, sliding_window tokens, as released, a
        longer prompt is read approximately.

        Shapes: input_ids (b, s) -> logits of the next token and what the draft reads, of the replayed tokens.
        """
        check_input(self.config.as_v4, input_ids)
        s, past, trunk, half = input_ids.shape[1], cache.length, self.model, self.model.n_encoder
        replay = self.config.sliding_window if replay is None else replay
        if replay < 1:
            raise ValueError(f"V41Transformer.read: replay is {replay}; the last token needs 1 or more")
        kept = min(s, replay)
        cache.prepare(*input_ids.shape)
        reach = self.config.engram_max_ngram_size - 1
        earlier = F.pad(cache.ids[:, :past], (reach, 0), value=NOTHING)[:, past : past + reach]
        carry, tokens = trunk.begin(input_ids, pictures, earlier=earlier)
        cache.ids[:, past : past + s] = tokens.ngrams[..., 0].masked_fill(tokens.is_picture, NOTHING)

        counts, start = [s] * len(input_ids), past + s - kept
        layout = CachedLayout(trunk.rotary_emb, cache.encoder, counts, s)
        carry = trunk.run(range(half), carry, tokens, layout, cache.encoder)
        if kept < s:
            layout = CachedLayout(trunk.rotary_emb, cache.decoder, counts, s)
            first = trunk.layers[half]
            assert isinstance(first, V41Layer)
            first.store(carry, layout, cache.decoder.layers[0])
            carry, tokens = carry.last(kept), tokens.last(kept)
            cache.decoder.origins = [start] * len(input_ids)
        starts = [start] * len(input_ids)
        layout = CachedLayout(trunk.rotary_emb, cache.decoder, [kept] * len(input_ids), kept, starts)
        targets: list[Tensor] = []
        carry = trunk.run(range(half, 2 * half), carry, tokens, layout, cache.decoder, targets)
        cache.advance(s)
        return self.lm_head(trunk.collapse(carry)), torch.cat(targets, dim=-1)

    def new_cache(self, batch_size: int, max_tokens: int, max_rewind: int = 0) -> V41Cache:
        """An empty memory for rows of up to max_tokens tokens; max_rewind tokens can be taken back."""
        return V41Cache(self.config, batch_size, max_tokens, max_rewind, self.dtype, self.device)
