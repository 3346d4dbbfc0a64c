"""The dense twin of the mini V4, against separate sequences and counts by hand."""

import pytest
import torch
import torch.nn.functional as F

import workbench as wb
from workbench.accounting import flop_per_prefill
from workbench.model import Transformer
from workbench.training.corpus import load_corpus
from workbench.training.loader import Batch
from workbench.training.mini_study import (
    dense_twin,
    forward_flop,
    mini,
    n_numbers,
    run_study,
    train_twin,
    twin_loss,
    twin_mean_loss,
)
from workbench.training.text_run import TextRun, held_out


def test_the_twin_is_as_large_as_fits_and_the_mini_has_at_most_15_million():
    v4 = n_numbers(Transformer(mini()))
    assert v4 <= 15e6
    assert 0.85 * v4 < n_numbers(dense_twin(v4, mini().vocab_size, 0)) <= v4


def test_packed_samples_have_the_twin_s_loss_of_separate_ones():
    twin = dense_twin(300_000, 64, 0)
    ids = torch.randint(64, (2, 24), generator=torch.Generator().manual_seed(0))
    samples = torch.zeros_like(ids)
    samples[0, 7:], samples[1, 20:] = 1, 1
    labels = ids.clone()
    labels[1, 20:] = -100  # padding
    total, count = 0.0, 0
    for piece in (ids[:1, :7], ids[:1, 7:], ids[1:, :20]):
        logits = twin(piece).logits[0]
        total += F.cross_entropy(logits[:-1], piece[0, 1:], reduction="sum").item()
        count += piece.shape[1] - 1
    assert twin_loss(twin, Batch(ids, samples, labels)).item() == pytest.approx(total / count, rel=1e-5)


def test_flop_are_those_counted_by_hand():
    batch = Batch(*(torch.zeros(1, 256, dtype=torch.long),) * 3)
    # What runs is a little more than what must: attention works on whole blocks.
    assert 1 < forward_flop(Transformer(mini()), batch) / flop_per_prefill(mini(), 256) < 1.15
    batch = Batch(*(x[:, :32] for x in batch))
    twin = dense_twin(300_000, 64, 0)
    d = twin.config.hidden_size
    matrices = sum(p.numel() for p in twin.parameters() if p.ndim == 2) - 64 * d  # the embedding is looked up
    scores = 6 * 2 * 32 * 32 * d  # six layers, keys and values
    assert forward_flop(twin, batch) == 2 * (32 * matrices + scores)


def test_the_twin_learns_and_both_are_written_down(tmp_path):
    config = wb.load_config("tiny").replace(vocab_size=290)
    run = TextRun(steps=4, rows=4, row_tokens=32, micro_rows=2, held_out_rows=8)
    texts = [" ".join(f"{a} plus {i} is {a + i}." for a in range(30)) for i in range(20)]
    corpus = load_corpus(290, texts=texts)
    twin = dense_twin(120_000, 290, 0)
    batches = held_out(corpus, run)
    before = twin_mean_loss(twin, batches)
    train_twin(twin, corpus, run, 12)
    assert twin_mean_loss(twin, batches) < before - 0.5
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    study = run_study(config, run, tmp_path / "run", texts=tmp_path)
    bought = study["dense"]["steps"] * study["dense"]["forward_flop_per_row"]
    spent = study["v4"]["steps"] * study["v4"]["forward_flop_per_row"]
    assert bought == pytest.approx(spent, abs=study["dense"]["forward_flop_per_row"])
    assert study["v4"]["held_out_loss"] > 0 < study["dense"]["held_out_loss"]
