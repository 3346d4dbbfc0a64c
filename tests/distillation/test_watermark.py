"""Marked texts and the test for them: against loops, a hand-worked sum, and keys that nobody used."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from workbench.distillation import radioactivity
from workbench.distillation.radioactivity import Excess
from workbench.distillation.watermark import Watermark, context_numbers, is_green
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rollout import Rollouts, sample

CONFIG = policy_config(
    32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
)
V = CONFIG.vocab_size
PROMPTS = [[1, 40, 41], [1, 50], [1, 44, 45, 46]]


@pytest.fixture(scope="module")
def policy():
    return new_policy(0, CONFIG).eval()


def splitmix(x: int) -> int:
    """The published finaliser in plain integers."""
    wide = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & wide
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & wide
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & wide
    return x ^ (x >> 31)


def test_colours_are_those_of_plain_integers_and_half_are_green():
    cells = np.arange(40_000, dtype=np.uint64)
    green = is_green([3, 5], cells)
    for k, key in enumerate((3, 5)):
        for cell in (0, 1, 977, 39_999):
            assert green[k, cell] == (splitmix(splitmix(key) ^ cell) >> 63 == 1)
    assert green.mean(axis=1) == pytest.approx(0.5, abs=0.01)
    assert (green[0] == green[1]).mean() == pytest.approx(0.5, abs=0.01)


def test_contexts_have_numbers_of_their_own():
    contexts = [[], [0], [0, 0], [1], [1, 0], [0, 1], [2, 1], [1, 2]]
    assert len(set(context_numbers(contexts, 7).tolist())) == len(contexts)


@pytest.mark.parametrize("window", [1, 2])
def test_the_shift_is_delta_at_the_green_words_of_the_last_words(window):
    mark = Watermark(9, 1.5, window, vocabulary=11)
    texts = [[3, 4, 5], [8, 4, 5], [4], [5]]
    shift = mark(texts)
    for row, text in enumerate(texts):
        number = 0
        for word in text[-window:]:
            number = number * 11 + word + 1
        for word in range(11):
            green = splitmix(splitmix(9) ^ (number * 11 + word)) >> 63 == 1
            assert shift[row, word].item() == (1.5 if green else 0.0)
    assert torch.equal(shift[0], shift[1])
    with pytest.raises(ValueError, match="correct the one below"):
        Watermark(1, window=0)


def test_marked_texts_are_greener_by_what_the_softmax_says(policy):
    """A fresh policy is nearly flat: half of its words up by delta, e^delta / (1 + e^delta) are green."""
    mark = Watermark(77, 2.0)
    texts = sample(policy, PROMPTS * 10, 4, 30, seed=1, stop_tokens=[], shift=mark)
    cells = radioactivity.cells_of(texts, mark.window, V)
    assert len(cells) == 30 * 4 * 30
    assert is_green([77], cells).mean() == pytest.approx(math.exp(2) / (1 + math.exp(2)), abs=0.03)
    assert is_green([78], cells).mean() == pytest.approx(0.5, abs=0.03)


def by_hand(tokens: list[list[int]]) -> Rollouts:
    return Rollouts([[1, 2]] * len(tokens), 1, tokens, [[0.0] * len(t) for t in tokens], [True] * len(tokens))


def test_cells_are_the_last_words_and_the_next_one():
    cells = radioactivity.cells_of(by_hand([[5, 6], [5]]), 2, 10)
    numbers = [(1 + 1) * 10 + 2 + 1, (2 + 1) * 10 + 5 + 1, (1 + 1) * 10 + 2 + 1]
    assert cells.tolist() == [numbers[0] * 10 + 5, numbers[1] * 10 + 6, numbers[2] * 10 + 5]


def test_what_is_subtracted_counted_by_hand():
    seen, control = np.array([4, 4, 7], dtype=np.uint64), np.array([4, 9, 9, 9, 9, 9], dtype=np.uint64)
    assert dict(zip(*radioactivity.plain(seen), strict=True)) == {4: 2, 7: 1}
    assert dict(zip(*radioactivity.distinct(seen), strict=True)) == {4: 1, 7: 1}
    assert dict(zip(*radioactivity.against(seen, control), strict=True)) == {4: 1.5, 7: 1, 9: -2.5}


def test_the_teachers_expectation_is_its_own_distribution_at_every_place(policy):
    texts = sample(policy, PROMPTS, 2, 5, seed=2)
    excess = radioactivity.against_teacher(texts, policy, 2, rows=4, least=0.0)
    expected: dict[int, float] = {}
    for row, tokens in enumerate(texts.tokens):
        text = texts.prompt(row) + tokens
        with torch.no_grad():
            p = policy(torch.tensor([text]))[0].softmax(-1)
        for place in range(len(text) - len(tokens), len(text)):
            number = (text[place - 2] + 1) * V + text[place - 1] + 1
            for word in range(V):
                cell = number * V + word
                said = float(word == text[place]) - p[place - 1, word].item()
                expected[cell] = expected.get(cell, 0.0) + said
    found = dict(zip(excess.cells.tolist(), excess.weight, strict=True))
    assert found.keys() == expected.keys()
    assert [found[c] for c in expected] == pytest.approx(list(expected.values()), abs=1e-5)
    assert excess.weight.sum() == pytest.approx(0, abs=1e-3)


def test_z_is_the_standardised_sum_and_p_the_rank_among_other_keys():
    excess = Excess(np.array([3, 8, 12], dtype=np.uint64), np.array([2.0, -1.0, 4.0]))
    keys = radioactivity.redrawn(50, 1)
    z = radioactivity.green_excess(excess, keys)
    for key, own in zip(keys[:5], z, strict=False):
        green = [splitmix(splitmix(int(key)) ^ cell) >> 63 for cell in (3, 8, 12)]
        assert own == pytest.approx(
            sum(d * (g - 0.5) for d, g in zip((2, -1, 4), green, strict=True)) / (0.5 * 21**0.5)
        )
    p = radioactivity.p_values(excess, keys, draws=99, seed=4)
    null = radioactivity.green_excess(excess, radioactivity.redrawn(99, 4))
    assert p.tolist() == [(1 + sum(n >= own - 1e-9 for n in null)) / 100 for own in z]
    with pytest.raises(ValueError, match="draw more"):
        radioactivity.green_excess(Excess(excess.cells, np.zeros(3)), keys)


def repeating_texts(seed: int) -> np.ndarray:
    """Cells of an innocent that says few things often: the case in which words are no coins of their own."""
    rng = np.random.default_rng(seed)
    return rng.choice(300, size=20_000, p=rng.dirichlet(np.full(300, 0.2))).astype(np.uint64)


def test_p_values_of_the_innocent_are_uniform_and_naive_ones_are_not():
    seen = radioactivity.plain(repeating_texts(0))
    keys = radioactivity.redrawn(500, 2)
    p, naive = radioactivity.p_values(seen, keys), radioactivity.naive_p_values(seen, keys)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert (naive <= 0.05).mean() > 0.3


def test_a_copy_of_marked_text_is_found_and_the_expectation_sharpens_it(policy):
    mark = Watermark(77, 1.0)
    texts = sample(policy, PROMPTS * 10, 4, 12, seed=1, stop_tokens=[], shift=mark)
    excess = radioactivity.against_teacher(texts, policy, mark.window)
    assert radioactivity.p_values(excess, [77])[0] == 0.001
    assert radioactivity.green_excess(excess, [77])[0] > 5 > radioactivity.green_excess(excess, [78])[0]
