"""From tokens to rows of a table: what Engram looks up for the n-grams that end at each token.

    t_0 .. t_3   the compressed ids of a token and of the three before it
    h_2 = t_0 μ_0 ⊕ t_1 μ_1,   h_3 = h_2 ⊕ t_2 μ_2,   h_4 = h_3 ⊕ t_3 μ_3
    row(n, head) = h_n mod prime(n, head) + offset(n, head)

Two n-grams that meet in one head of an order rarely meet in another: their primes differ.

Source: "Conditional Memory via Scalable Lookup", arXiv 2601.07372; V4.1-Flash, released inference code.
Axes: b rows, s tokens, o orders (2, 3, 4), h heads.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.model.v41.v41_config import V41Config

NOTHING = -1  # the compressed id of a token that no n-gram reaches across: part of a picture, or none at all


def normalised(text: str) -> str:
    """Without case, accents and the width of its spaces: "  Ärger" and "arger" are one."""
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    text = "".join(c for c in text if unicodedata.category(c) != "Mn").lower()
    text = re.sub(r"\s+", " ", text)
    return text if text == " " else text.strip()


def compressed_ids(texts: Sequence[str | None]) -> list[int]:
    """The compressed id of every token: equal once normalised, equal ids. None keeps an id of its own.

    `texts` are the vocabulary's in the order of its ids, None where a token is part of a character.
    Numbers are given in order of first appearance.
    """
    seen: dict[str | int, int] = {}
    return [
        seen.setdefault(i if text is None else normalised(text), len(seen)) for i, text in enumerate(texts)
    ]


def primes_above(start: int) -> Iterator[int]:
    """The primes that are greater than `start`, in order."""
    return (
        n
        for n in itertools.count(max(start + 1, 2))
        if n == 2 or (n % 2 and all(n % i for i in range(3, isqrt(n) + 1, 2)))
    )


def table_primes(config: V41Config) -> list[np.ndarray]:
    """How many rows every head of every order has, for each module: (o, h) distinct primes.

    All modules draw from one line of primes, which starts at engram_vocab_size.
    """
    orders, heads = config.engram_max_ngram_size - 1, config.engram_n_heads
    line = primes_above(config.engram_vocab_size - 1)
    return [
        np.array(list(itertools.islice(line, orders * heads)), dtype=np.int64).reshape(orders, heads)
        for _ in config.engram_layer_ids
    ]


def multipliers(config: V41Config, layer: int) -> np.ndarray:
    """The odd factors of a layer's hash, so small that no product leaves 63 bits."""
    bound = (2**63 - 1) // config.engram_compressed_vocab_size // 2
    return 2 * np.random.default_rng(10007 * layer).integers(0, bound, config.engram_max_ngram_size) + 1


def look_back(ids: Tensor, reach: int, pad: int, sample_ids: Tensor | None = None) -> Tensor:
    """Each token's compressed id and those of the reach - 1 tokens before it; `pad` where there is none.

    Nothing is seen from a token of another sample on, nor from NOTHING on.

    Shapes: ids, sample_ids (b, s) -> (b, s, reach).
    """
    seen, line = ids != NOTHING, [ids.masked_fill(ids == NOTHING, pad)]
    for back in range(1, reach):
        earlier = F.pad(ids, (back, 0), value=NOTHING)[:, : ids.shape[1]]
        seen = seen & (earlier != NOTHING)
        if sample_ids is not None:
            same = F.pad(sample_ids, (back, 0), value=NOTHING)[:, : ids.shape[1]]
            seen = seen & (same == sample_ids)
        line.append(earlier.masked_fill(~seen, pad))
    return torch.stack(line, dim=-1)


def table_rows(ngrams: Tensor, factors: Tensor, primes: Tensor) -> Tensor:
    """The row of every order and head.

    Shapes: ngrams (b, s, n), factors (n,), primes (o, h) -> (b, s, o, h).
    """
    products = ngrams * factors
    hashed, orders = products[..., 0], []
    for back in range(1, ngrams.shape[-1]):
        hashed = hashed ^ products[..., back]
        orders.append(hashed)
    sizes = primes.flatten()
    offsets = (sizes.cumsum(0) - sizes).view(primes.shape)
    return torch.stack(orders, dim=-1).unsqueeze(-1) % primes + offsets
