"""The V4 network: embedding, residual streams, decoder layers, head.

Report: section 2 and Figure 2. Parameter names are those of transformers' `deepseek_v4`, with the
multi-token-prediction (MTP) modules beside them under `mtp.`.

Axes: b rows, s tokens, n streams, d hidden_size, v vocab_size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from workbench.config import ModelConfig
from workbench.model import generate as writing
from workbench.model.cache import Cache
from workbench.model.cached_layout import CachedLayout
from workbench.model.checks import check_input
from workbench.model.generate import Generated, Step
from workbench.model.initialise import initialise
from workbench.model.layout import Layout, PackedLayout
from workbench.model.loss import IGNORED, linear_cross_entropy
from workbench.model.mtp import MTPBlock
from workbench.model.network import Network
from workbench.model.one_token import one_token
from workbench.model.padding import Padding
from workbench.model.prompts import Prompts
from workbench.model.trunk import Trunk
from workbench.model.v4_config import v4_config

PASS_TOKENS = 1024  # tokens of one inference pass: their activations stay in a processor's cache


class Transformer(Network):
    """A V4 model for a configuration, with fresh weights.

    `model(input_ids)` gives the logits of the next token at every position.

    Args:
        generator: draws the first weights; the global generator if None.
        recompute_activations: in training, keep only each layer's input and compute the rest again in
            the backward pass (activation checkpointing).

    Raises:
        ValueError: the configuration is of another family, or has what V4's modules do not compute.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        generator: torch.Generator | None = None,
        recompute_activations: bool = False,
    ):
        super().__init__()
        self.config = config
        self.v4 = v4 = v4_config(config)
        self.recompute_activations = recompute_activations
        self.model = Trunk(v4)
        self.lm_head = nn.Linear(v4.hidden_size, v4.vocab_size, bias=False)
        self.mtp = nn.ModuleList(MTPBlock(v4) for _ in range(v4.num_nextn_predict_layers))
        if self.device.type != "meta":
            initialise(self, v4.initializer_range, generator)

    def forward(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        sample_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits of the next token at every position.

        Rows may be padded anywhere (attention_mask, nonzero at tokens); padded positions have
        meaningless logits. Rows may hold several samples (sample_ids, a run of equal numbers each);
        then nothing crosses from one to the next. With a cache, the tokens continue its rows, and the
        pass carries no gradient. Without gradients a long input is read in several passes, so that
        memory holds little more than the logits.

        Shapes: input_ids, attention_mask, sample_ids (b, s) -> (b, s, v).

        Raises:
            ValueError: ids that are no (b, s) of vocabulary numbers, more tokens than the configuration
                or the cache holds, masks of another shape, or sample_ids with a cache.
        """
        check_input(self.v4, input_ids, attention_mask, sample_ids, cache)
        padding = None if attention_mask is None else Padding(attention_mask)
        if padding is not None:
            input_ids = padding.to_left(input_ids)
            sample_ids = None if sample_ids is None else padding.to_left(sample_ids)
        if cache is None and (
            torch.is_grad_enabled() or sample_ids is not None or input_ids.numel() <= PASS_TOKENS
        ):
            logits = self.lm_head(self.model.collapse(self.streams(input_ids, sample_ids=sample_ids)))
        else:
            counts = padding.counts if padding is not None else [input_ids.shape[1]] * len(input_ids)
            cache = self.new_cache(*input_ids.shape) if cache is None else cache
            logits = self._read_logits(input_ids, counts, cache)
        return logits if padding is None else padding.restore(logits)

    def _read_logits(self, input_ids: Tensor, counts: Sequence[int], cache: Cache) -> Tensor:
        # Made out here, so that the caller gets an ordinary tensor.
        logits = torch.empty(*input_ids.shape, self.v4.vocab_size, dtype=self.dtype, device=self.device)
        with torch.inference_mode():
            for begin, streams in self.read(input_ids, counts, cache):
                logits[:, begin : begin + streams.shape[1]] = self.lm_head(self.model.collapse(streams))
        return logits

    def streams(
        self,
        input_ids: Tensor,
        *,
        sample_ids: Tensor | None = None,
        cache: Cache | None = None,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """The residual streams before the final collapse, in one pass: (b, s) -> (b, s, n, d).

        With a cache the tokens continue its rows, row i with the first counts[i] of its own. Unlike
        `forward` this keeps gradients: what the cache holds becomes a part of the graph, so that several
        continuations of a text can be trained on one reading of it (see Cache.reorder).
        """
        if cache is not None:
            counts = [input_ids.shape[1]] * len(input_ids) if counts is None else counts
            cache.prepare(counts)
            layout = CachedLayout(self.model.rotary_emb, cache, counts, input_ids.shape[1])
            streams = self.model(input_ids, layout, cache.layers)
            cache.advance(counts)
            return streams
        recompute = self.recompute_activations and torch.is_grad_enabled()
        return self.model(input_ids, self._layout(input_ids, sample_ids), recompute=recompute)

    @torch.inference_mode()
    def read(self, input_ids: Tensor, counts: Sequence[int], cache: Cache) -> Iterator[tuple[int, Tensor]]:
        """Read rows into a cache, some PASS_TOKENS at a time.

        Row i has counts[i] tokens, at its left. Yields (begin, streams of tokens begin, begin + 1, ...),
        the streams as inference tensors: a graph for gradients refuses them.
        """
        rows, s = input_ids.shape
        step = max(PASS_TOKENS // rows, 1)
        for begin in range(0, s, step):
            ids = input_ids[:, begin : begin + step]
            now = [min(max(count - begin, 0), ids.shape[1]) for count in counts]
            cache.prepare(now)
            token_step = one_token(self, cache) if ids.shape[1] == 1 and now == [1] else None
            if token_step is not None:
                streams = token_step(cache, int(ids))
            else:
                layout = CachedLayout(self.model.rotary_emb, cache, now, ids.shape[1])
                streams = self.model(ids, layout, cache.layers)
            cache.advance(now)
            yield begin, streams

    def draft(
        self, streams: Tensor, next_ids: Tensor, *, block: int = 0, sample_ids: Tensor | None = None
    ) -> Tensor:
        """The streams from which `draft_logits` predicts the token after next_ids, by an MTP block.

        `streams` is what `model.streams(input_ids)` gives, or what the block before this one gave;
        next_ids are the tokens one (two, ...) after those that the streams belong to.

        Shapes: streams (b, s, n, d), next_ids (b, s) -> (b, s, n, d).
        """
        layout = self._layout(next_ids, sample_ids)
        return self.mtp_block(block).draft(streams, self.model.embed_tokens(next_ids), next_ids, layout)

    def draft_logits(self, streams: Tensor, *, block: int = 0) -> Tensor:
        """Logits from an MTP block's streams: (b, s, n, d) -> (b, s, v)."""
        return self.lm_head(self.mtp_block(block).collapse(streams))

    def loss(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        sample_ids: Tensor | None = None,
        mtp_weight: float = 0.0,
    ) -> Tensor:
        """Next-token cross entropy, averaged over the predicted tokens, plus mtp_weight times the MTP's.

        Labels default to the ids, are shifted inside, and -100 is left out, as in transformers. Padding
        and the first token of every packed sample but a row's first carry no loss.

        Shapes: all (b, s) -> ().
        """
        check_input(self.v4, input_ids, attention_mask, sample_ids)
        labels = input_ids if labels is None else labels
        if attention_mask is not None:
            padding = Padding(attention_mask)
            labels = padding.to_left(labels.masked_fill(attention_mask == 0, IGNORED))
            input_ids = padding.to_left(input_ids)
            sample_ids = None if sample_ids is None else padding.to_left(sample_ids)

        streams = self.streams(input_ids, sample_ids=sample_ids)
        loss = self._loss_ahead(self.model.collapse(streams), labels, sample_ids, 1)
        for block in range(len(self.mtp) if mtp_weight else 0):
            next_ids = F.pad(input_ids[:, block + 1 :], (0, block + 1))
            streams = self.draft(streams, next_ids, block=block, sample_ids=sample_ids)
            ahead = self._loss_ahead(self.mtp_block(block).collapse(streams), labels, sample_ids, block + 2)
            loss = loss + mtp_weight / len(self.mtp) * ahead
        return loss

    def _loss_ahead(self, x: Tensor, labels: Tensor, sample_ids: Tensor | None, steps: int) -> Tensor:
        """The mean loss of predicting the token `steps` later, within the same sample."""
        target = labels[:, steps:]
        if sample_ids is not None:
            target = target.masked_fill(sample_ids[:, steps:] != sample_ids[:, :-steps], IGNORED)
        x = rearrange(x[:, :-steps], "b s d -> (b s) d")
        return linear_cross_entropy(x, self.lm_head.weight, target.flatten())

    def new_cache(self, batch_size: int, max_tokens: int, max_rewind: int = 0) -> Cache:
        """An empty memory for rows of up to max_tokens tokens; max_rewind tokens can be taken back.

        Raises:
            ValueError: max_tokens exceeds max_position_embeddings.
        """
        if max_tokens > self.v4.max_position_embeddings:
            raise ValueError(
                f"Transformer.new_cache: got max_tokens={max_tokens}; max_position_embeddings="
                f"{self.v4.max_position_embeddings} is the longest context; ask for that or less"
            )
        return Cache(self.v4, batch_size, max_tokens, max_rewind, self.dtype, self.device)

    def generate(self, input_ids: Prompts, max_new_tokens: int, **options: Any) -> Generated:
        """Continue prompts; see generate.generate for the options."""
        return writing.generate(self, input_ids, max_new_tokens, **options)

    def stream(self, input_ids: Prompts, max_new_tokens: int, **options: Any) -> Iterator[Step]:
        """Continue prompts and yield every step's tokens as they come; see generate.stream."""
        return writing.stream(self, input_ids, max_new_tokens, **options)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in torch. A state dict without any `mtp.` tensor leaves the MTP modules as they are:
        transformers' own has none."""
        if not any(name.startswith("mtp.") for name in state_dict):
            own = {f"mtp.{name}": tensor for name, tensor in self.mtp.state_dict().items()}
            state_dict = {**state_dict, **own}
        return super().load_state_dict(state_dict, strict, assign)

    def _layout(self, input_ids: Tensor, sample_ids: Tensor | None) -> Layout:
        rotary, window = self.model.rotary_emb, self.v4.sliding_window
        if sample_ids is not None:
            return PackedLayout(rotary, sample_ids, window, self.dtype)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return Layout(rotary, positions, len(input_ids), window, self.dtype)

    def mtp_block(self, block: int) -> MTPBlock:
        if block >= len(self.mtp):
            raise ValueError(
                f"Transformer: got MTP block {block}; the model has {len(self.mtp)}; choose a configuration "
                f"with num_nextn_predict_layers >= {block + 1}"
            )
        module = self.mtp[block]
        assert isinstance(module, MTPBlock)
        return module
