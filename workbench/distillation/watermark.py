"""A watermark in drawn text: a secret key makes half of all words likelier, another after every context.

    a word v after the context c (the last `window` words) is green if a hash of (key, c, v) begins with 1
    the logits of green words rise by delta before a word is drawn

Half of the words are green in the mean; each is so or not by itself, so that the green words of another key
are an independent draw, and what an unmarked text has of them can be said exactly (`radioactivity`).

Departs: the published scheme (arXiv 2301.10226) colours exactly a share gamma of the words after a context.
Axes: k keys, n cells (a context and a word that may follow it), v vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from workbench.reasoning.vocabulary import VOCABULARY

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Watermark:
    """What to add to the logits of the next word; `sample(..., shift=mark)` draws marked text.

    Raises:
        ValueError: a negative key or delta, or a window below 1.
    """

    key: int
    delta: float = 2.0
    window: int = 2
    vocabulary: int = len(VOCABULARY)

    def __post_init__(self) -> None:
        if self.key < 0 or self.delta < 0 or self.window < 1:
            raise ValueError(
                f"Watermark: got key={self.key}, delta={self.delta}, window={self.window}; needs a key and "
                f"delta of 0 or more and a window of 1 or more; correct the one below"
            )

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """delta where the next word would be green: r texts so far -> (r, v)."""
        contexts = context_numbers([text[-self.window :] for text in texts], self.vocabulary)
        words = np.arange(self.vocabulary, dtype=np.uint64)
        cells = np.add.outer(contexts * np.uint64(self.vocabulary), words).ravel()
        green = is_green([self.key], cells)[0].reshape(len(texts), self.vocabulary)
        return self.delta * torch.from_numpy(green.astype(np.float32))


def context_numbers(contexts: Sequence[Sequence[int]], vocabulary: int) -> Words:
    """A number for each context, different for different words."""
    found = np.zeros(len(contexts), dtype=np.uint64)
    for place, words in enumerate(contexts):
        number = 0
        for word in words:
            number = number * vocabulary + word + 1
        found[place] = number % 2**40
    return found


def is_green(keys: ArrayLike, cells: Words) -> NDArray[np.bool_]:
    """The colour of every cell (context times vocabulary plus word) under every key: (k,), (n,) -> (k, n)."""
    own = _mixed(np.asarray(keys, dtype=np.uint64))
    return (_mixed(own[:, None] ^ cells[None, :]) >> np.uint64(63)) == 1


def _mixed(x: Words) -> Words:
    """A hash whose every bit depends on all bits of x.

    Source: the finaliser of splitmix64 (Steele, Lea and Flood, 2014).
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
