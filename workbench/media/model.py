"""The V4 network with a vocabulary of text, control and code tokens.

What is added to `Transformer`: a code's embedding also holds where it lies and which values it stands for,
and the loss weighs modalities. Everything else (attention, compression, experts, residual streams, cache) is
V4's as it is; text goes through it unchanged.

Axes: b rows, s tokens, d hidden_size, v vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.config import ModelConfig, load_config
from workbench.media.places import code_places
from workbench.media.quantisers import FSQ
from workbench.media.vocabulary import LARGEST_SIDE, Vocabulary
from workbench.model import Transformer
from workbench.model.loss import IGNORED

CODE_WEIGHT = 0.5  # of a code in the loss, beside 1 of a word or marker; Emu3 weighs its codes so


def media_config(vocabulary: Vocabulary) -> ModelConfig:
    """A V4 of 1.3M parameters: window, CSA, HCA and CSA layers, eight experts, four residual streams.

    The window is a little more than a latent frame of 36 codes, so that a code's own place in the frame
    before is still seen uncompressed; an HCA entry is as long as a frame.
    """
    return load_config("tiny").replace(
        vocab_size=vocabulary.size,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        head_dim=32,
        qk_rope_head_dim=16,
        q_lora_rank=64,
        o_groups=2,
        o_lora_rank=64,
        index_n_heads=4,
        index_head_dim=16,
        index_topk=64,
        moe_intermediate_size=64,
        n_routed_experts=8,
        num_experts_per_tok=2,
        num_hash_layers=1,
        num_nextn_predict_layers=0,
        sliding_window=48,
        compress_ratios=(0, 4, 36, 4),
        layer_types=(
            "sliding_attention",
            "compressed_sparse_attention",
            "heavily_compressed_attention",
            "compressed_sparse_attention",
        ),
        swiglu_limit=10.0,
        max_position_embeddings=1024,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
    )


class MediaEmbedding(nn.Embedding):
    """Token embeddings; at a code, plus learned vectors of its frame, row and column, plus a linear map of
    its FSQ values, so that codes of like pictures start out alike.

    Shapes: (b, s) -> (b, s, d).
    """

    def __init__(self, vocabulary: Vocabulary, quantiser: FSQ, hidden_size: int):
        super().__init__(vocabulary.size, hidden_size)
        self.vocabulary = vocabulary
        values = torch.zeros(vocabulary.size, quantiser.dim)
        values[vocabulary.first_code :] = quantiser.values(torch.arange(vocabulary.n_codes))
        self.values: Tensor
        self.register_buffer("values", values, persistent=False)
        self.code_proj = nn.Linear(quantiser.dim, hidden_size, bias=False)
        # One row for each size, for t, y and x; named as V4's other additive position tables are.
        self.position_bias = nn.Parameter(torch.zeros(3, LARGEST_SIDE, hidden_size))
        self._places: Iterator[Tensor] | None = None
        self._seen: tuple[Tensor, int] | None = None

    @contextmanager
    def reading(self, known: Tensor, begin: int = 0) -> Iterator[None]:
        """Within it, what is embedded are the columns of `known` (b, s) from `begin` on, a pass at a time.

        Cached decoding needs it: where a code lies cannot be told from the newest tokens alone.
        """
        self._places = iter(code_places(known, self.vocabulary)[:, begin:].unbind(dim=1))
        try:
            yield
        finally:
            self._places = None

    @contextmanager
    def seeing(self, spans: Tensor, begin: int) -> Iterator[None]:
        """Within it, vectors stand in place of the embeddings from column `begin` on: spans (b, k, d).

        As in V4.1, the ids there only hold the place.
        """
        self._seen = spans, begin
        try:
            yield
        finally:
            self._seen = None

    def forward(self, ids: Tensor) -> Tensor:
        if self._places is None:
            places = code_places(ids, self.vocabulary)
        else:
            places = torch.stack(list(islice(self._places, ids.shape[1])), dim=1)
        x = super().forward(ids) + self.code_proj(self.values[ids])
        is_code = (places[..., :1] >= 0).to(x.dtype)
        for axis in range(3):
            place = places[..., axis].clamp(0, LARGEST_SIDE - 1)
            x = x + is_code * self.position_bias[axis][place]
        if self._seen is not None:
            spans, begin = self._seen
            x = torch.cat([x[:, :begin], spans, x[:, begin + spans.shape[1] :]], dim=1)
        return x


class MediaModel(Transformer):
    """One network, one loss, one vocabulary: pictures, videos and words in and out.

    Args:
        config: `media_config(vocabulary)` if None.
        code_weight: of the codes in the loss; words and markers weigh 1.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        quantiser: FSQ,
        config: ModelConfig | None = None,
        *,
        generator: torch.Generator | None = None,
        code_weight: float = CODE_WEIGHT,
    ):
        super().__init__(media_config(vocabulary) if config is None else config, generator=generator)
        self.vocabulary, std = vocabulary, self.v4.initializer_range
        embedding = MediaEmbedding(vocabulary, quantiser, self.v4.hidden_size)
        with torch.no_grad():
            embedding.weight.copy_(self.model.embed_tokens.weight)
            embedding.code_proj.weight.normal_(0, std, generator=generator)
            embedding.position_bias.normal_(0, std, generator=generator)
        self.model.embed_tokens = embedding
        weights = torch.ones(vocabulary.size)
        weights[vocabulary.first_code :] = code_weight
        self.token_weights: Tensor
        self.register_buffer("token_weights", weights, persistent=False)

    @property
    def embedding(self) -> MediaEmbedding:
        found = self.model.embed_tokens
        assert isinstance(found, MediaEmbedding)
        return found

    def _loss_ahead(self, x: Tensor, labels: Tensor, sample_ids: Tensor | None, steps: int) -> Tensor:
        # The vocabulary is small, so all logits may be held; the mean is weighted by the predicted token.
        target = labels[:, steps:]
        if sample_ids is not None:
            target = target.masked_fill(sample_ids[:, steps:] != sample_ids[:, :-steps], IGNORED)
        logits = self.lm_head(x[:, :-steps]).flatten(0, 1).float()
        return F.cross_entropy(logits, target.flatten(), self.token_weights, ignore_index=IGNORED)
