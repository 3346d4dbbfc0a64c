"""Was a model trained on marked text? Its own texts are asked, with a p-value that holds.

Let D be how often each word followed each context, less what would be expected of it. Under a key that had no
part in D, every cell is green or not by a fair coin, so the green excess

    S = Σ D (g - ½)        has mean 0 and variance ¼ Σ D²,        z = S / (½ √Σ D²)

whatever D is. The p-value is the share of other keys, drawn afresh, under which S is as large: exact, as the
key was chosen without looking at the suspect. The usual z = (green - n/2) / (½ √n) takes every word for a
coin of its own. It is not: the same words again are the same coin again, Σ D² is larger than n, and the
innocent are accused.

What may be subtracted changes how much is seen and never whether the p-value holds:

    plain      nothing
    distinct   nothing, and every cell counts once (arXiv 2402.14904): then Σ D² is n
    control    what texts of an unmarked model hold, scaled to the same number of words
    expected   what the unmarked teacher itself would have said in the same contexts

Axes: n cells, k keys.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from workbench.distillation.watermark import Words, context_numbers, is_green
from workbench.model import Transformer
from workbench.reasoning.rollout import Rollouts, padded_rows

Floats = NDArray[np.float64]
CELLS_AT_A_TIME = 4_000_000


class Excess(NamedTuple):
    """Cells, each once, and how much more often than expected they were seen."""

    cells: Words
    weight: Floats


def cells_of(rollouts: Rollouts, window: int, vocabulary: int) -> Words:
    """The cell of every answer word: (all t,)."""
    contexts, words = [], []
    for row, tokens in enumerate(rollouts.tokens):
        text = rollouts.prompt(row) + tokens
        for place in range(len(text) - len(tokens), len(text)):
            contexts.append(text[max(place - window, 0) : place])
            words.append(text[place])
    return context_numbers(contexts, vocabulary) * np.uint64(vocabulary) + np.array(words, dtype=np.uint64)


def plain(cells: Words) -> Excess:
    """How often each cell was seen."""
    own, count = np.unique(cells, return_counts=True)
    return Excess(own, count.astype(np.float64))


def distinct(cells: Words) -> Excess:
    """Every cell once, however often it was seen."""
    own = np.unique(cells)
    return Excess(own, np.ones(len(own)))


def against(cells: Words, control: Words) -> Excess:
    """How often each cell was seen, less how often in a control text of the same length."""
    return _less(plain(cells), plain(control), len(cells) / max(len(control), 1))


@torch.no_grad()
def against_teacher(
    rollouts: Rollouts, teacher: Transformer, window: int, *, rows: int = 64, least: float = 1e-3
) -> Excess:
    """How often each cell was seen, less how often the unmarked teacher would have said it there.

    The teacher reads the suspect's own texts, so a word that it holds for certain adds nothing. Expectations
    below `least` a place are left out.
    """
    vocabulary = teacher.v4.vocab_size
    cells, expected = [], []
    begun = 0
    seen = cells_of(rollouts, window, vocabulary)
    for begin in range(0, len(rollouts), rows):
        part = range(begin, min(begin + rows, len(rollouts)))
        ids, is_answer = padded_rows(rollouts, part, teacher.device)
        x = teacher.model.collapse(teacher.streams(ids[:, :-1]))[is_answer[:, 1:]]
        p = teacher.lm_head(x).float().softmax(-1).double().cpu().numpy()
        place, word = np.nonzero(p >= least)
        context = seen[begun : begun + len(p)] // np.uint64(vocabulary)
        cells.append(context[place] * np.uint64(vocabulary) + word.astype(np.uint64))
        expected.append(p[place, word])
        begun += len(p)
    own, where = np.unique(np.concatenate(cells), return_inverse=True)
    said = np.bincount(where, np.concatenate(expected)).astype(np.float64)
    return _less(plain(seen), Excess(own, said), 1.0)


def _less(one: Excess, other: Excess, scale: float) -> Excess:
    own, where = np.unique(np.concatenate([one.cells, other.cells]), return_inverse=True)
    weight = np.bincount(where, np.concatenate([one.weight, -scale * other.weight]))
    return Excess(own, weight.astype(np.float64))


def green_excess(excess: Excess, keys: Sequence[int] | Words) -> Floats:
    """z under every key: (k,)."""
    scale = 0.5 * np.sqrt((excess.weight**2).sum())
    if not scale > 0:
        raise ValueError(
            "green_excess: got texts in which nothing differs from what was expected; needs one cell that "
            "does; draw more"
        )
    step = max(CELLS_AT_A_TIME // len(excess.cells), 1)
    keys = np.asarray(keys, dtype=np.uint64)
    parts = [
        (is_green(keys[begin : begin + step], excess.cells) - 0.5) @ excess.weight
        for begin in range(0, len(keys), step)
    ]
    return np.concatenate(parts) / scale


def p_values(excess: Excess, keys: Sequence[int] | Words, *, draws: int = 999, seed: int = 0) -> Floats:
    """For every key the share of redrawn keys under which the excess is as large, itself among them: (k,)."""
    null = np.sort(green_excess(excess, redrawn(draws, seed)))
    own = green_excess(excess, keys)
    return (1 + draws - np.searchsorted(null, own - 1e-9, side="left")) / (1 + draws)


def naive_p_values(seen: Excess, keys: Sequence[int] | Words) -> Floats:
    """The p-value of the green share as if every word were a coin of its own: what not to do. (k,)."""
    green = is_green(keys, seen.cells) @ seen.weight
    n = seen.weight.sum()
    return stats.norm.sf((green - n / 2) / (0.5 * np.sqrt(n)))


def redrawn(count: int, seed: int) -> Words:
    """Keys that nobody has used."""
    return np.random.default_rng([seed, 7]).integers(2**62, 2**63, size=count, dtype=np.uint64)
