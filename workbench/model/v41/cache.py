"""What a V4.1 model remembers: V4's caches for encoder and decoder, and the ids that n-grams look back on.

The decoder's windows may begin later than the encoder's: after a long prompt they hold only the tokens that
were replayed. Entries exist in the layers that own them, and nowhere else.

Source: V4.1-Flash report (arXiv 2609.19969); V4 report, section 3.6.1, for the rings and blocks.
Axes: b rows, r ring slots, c channels.
"""

from types import SimpleNamespace
from typing import cast

import torch

from workbench.config import SWA
from workbench.model.cache import Cache, CompressedState
from workbench.model.v4_config import V4Config
from workbench.model.v41.ngrams import NOTHING
from workbench.model.v41.v41_config import V41Config

BLOCK_TOKENS = 64  # tokens of one block of the store; every ratio of a configuration divides it


class V41Cache:
    """The memory of rows of equal length. `model.read(ids, cache)` reads more tokens.

    `max_rewind` tokens at the end of what was read can be taken back.
    """

    def __init__(
        self,
        config: V41Config,
        batch_size: int,
        max_tokens: int,
        max_rewind: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        if max_tokens > config.max_position_embeddings:
            raise ValueError(
                f"V41Cache: got max_tokens={max_tokens}; max_position_embeddings="
                f"{config.max_position_embeddings} is the longest context; ask for that or less"
            )
        self.batch_size, self.max_tokens, self.length = batch_size, max_tokens, 0
        half = config.num_hidden_layers // 2

        def part(layers: range) -> Cache:
            # To V4's cache every layer is a window; the owners of entries get their stores below.
            shape = SimpleNamespace(
                sliding_window=config.sliding_window,
                head_dim=config.head_dim,
                layer_ratios=(BLOCK_TOKENS,) * half,
                attention_types=(SWA,) * half,
                num_nextn_predict_layers=0,
            )
            cache = Cache(cast(V4Config, shape), batch_size, max_tokens, max_rewind, dtype, device)
            for layer in set(layers) & set(config.kv_source_layer_ids):
                ratio, state = config.layer_ratios[layer], cache.layers[layer - layers.start]
                # Values and gates wait for their window; one token a window waits for nothing.
                raw = config.head_dim * (2 if ratio > 1 else 1)

                def store(width: int, raw: int, ratio: int = ratio) -> CompressedState:
                    return CompressedState(
                        tail=torch.zeros(
                            batch_size, max(ratio - 1 + max_rewind, 1), raw, dtype=dtype, device=device
                        ),
                        pool=torch.zeros(0, BLOCK_TOKENS // ratio, width, dtype=dtype, device=device),
                    )

                state.compressed, state.index = store(config.head_dim, raw), store(config.index_head_dim, 0)
            return cache

        self.encoder, self.decoder = part(range(half)), part(range(half, 2 * half))
        self.ids = torch.full((batch_size, max_tokens), NOTHING, device=device)

    def prepare(self, rows: int, tokens: int) -> None:
        """Make room for `tokens` more of `rows` rows.

        Raises:
            ValueError: another number of rows, or more than max_tokens tokens.
        """
        if rows != self.batch_size:
            raise ValueError(
                f"V41Cache: got {rows} rows; it holds batch_size={self.batch_size}; "
                f"make it with new_cache(batch_size={rows}, ...)"
            )
        for half in (self.encoder, self.decoder):
            half.prepare([tokens] * rows)

    def advance(self, tokens: int) -> None:
        """Note that `tokens` more were read."""
        for half in (self.encoder, self.decoder):
            half.advance([tokens] * self.batch_size)
        self.length += tokens

    def rewind(self, tokens: int) -> None:
        """Forget the last `tokens` tokens.

        Raises:
            ValueError: more than max_rewind before the furthest position ever read.
        """
        for half in (self.encoder, self.decoder):
            half.rewind(tokens)
        self.length -= tokens
