"""The recorded comparisons of chapter 19 compare what they say they do."""

import pytest
import torch

from tests.oracles.v41_small import small_model
from workbench.model.v41.counts import active
from workbench.training import draft_study, memory_study


def test_the_networks_pass_and_hold_as_many_parameters():
    memory, wider, more = (memory_study.study_config(name) for name in memory_study.MODELS)
    passed = [active(c, "decode", memory=True) for c in (memory, wider, more)]
    assert passed[0] <= passed[1] <= passed[2] < 1.02 * passed[0]
    held = [memory_study.all_of(c) for c in (memory, more)]
    assert held[0] <= held[1] < 1.05 * held[0]
    assert not wider.engram_layer_ids and not more.engram_layer_ids


def test_texts_are_facts_of_the_table():
    generator = torch.Generator().manual_seed(3)
    pairs, answers = memory_study.table_of(50, generator)
    table = {tuple(pair): answer for pair, answer in zip(pairs.tolist(), answers.tolist(), strict=True)}
    assert len(table) == 50
    for a, b, c in memory_study.texts((pairs, answers), 3, generator).view(-1, 3).tolist():
        assert table[a, b] == c


def test_a_memory_learns_a_few_facts_at_once(monkeypatch):
    monkeypatch.setattr(memory_study, "FACTS", 40)
    model, found = memory_study.train("memory", 8e-3, 0, steps=12, points=2)
    fresh = memory_study.new_model("memory", 0)
    generator = torch.Generator().manual_seed(1000)
    probe = memory_study.texts(memory_study.table_of(40, generator), 8, generator)
    assert memory_study.recall(fresh, probe) < 0.2 < 0.8 < found["recall"]
    generator = torch.Generator().manual_seed(0)
    rows = memory_study.gate_rows(model, memory_study.table_of(40, generator), generator, rows=1)
    assert {row["place"] for row in rows} == {"A", "B, a known fact", "B, no fact", "c"}
    assert all(0 < row["gate"] < 1 for row in rows)


def test_a_network_without_memory_has_no_gates():
    with pytest.raises(ValueError, match="the network has no memory"):
        memory_study.gates(memory_study.new_model("wider experts", 0), torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="model is 'x'; choose one of"):
        memory_study.study_config("x")


def test_draft_losses_are_those_of_the_slots_one_by_one():
    """Anchor by anchor, through the model's own drafting, with the text's tokens before each slot."""
    model, generator = small_model(3)
    ids, anchors = torch.randint(59, (2, 20), generator=generator), torch.tensor([2, 11])
    slots, sure = draft_study.draft_losses(model, ids, anchors)
    surprises, misses = [], []
    with torch.no_grad():
        p = model(ids).softmax(dim=-1)
        for row in range(2):
            for anchor in anchors.tolist():
                targets = model.hidden(ids[row : row + 1, : anchor + 1])[1]
                context = model.mtp.context(targets, torch.tensor([anchor]))
                y = model.mtp(context, ids[row, anchor + 1][None], model.model.embed_tokens)
                previous = ids[row : row + 1, anchor + 1 : anchor + 6]
                q = model.mtp.logits(y, previous, model.lm_head).softmax(dim=-1)[0]
                odds = model.mtp.confidence(y, previous)[0].sigmoid()
                for i in range(5):
                    surprises.append(-q[i, ids[row, anchor + 2 + i]].log())
                    kept = torch.minimum(q[i], p[row, anchor + 1 + i]).sum()
                    misses.append(-(kept * odds[i].log() + (1 - kept) * (1 - odds[i]).log()))
    torch.testing.assert_close(slots.detach(), torch.stack(surprises).mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sure.detach(), torch.stack(misses).mean(), rtol=1e-4, atol=1e-4)
    (slots + sure).backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith("model.layers"))
    assert model.mtp.markov_embed.weight.grad.any()


def test_the_records_hold_every_run():
    assert set(memory_study.read_study()) == {
        (m, r, s) for m in memory_study.MODELS for r in memory_study.RATES for s in memory_study.SEEDS
    }
    assert set(draft_study.read_study()) == {(d, s) for d in draft_study.DRAFTS for s in draft_study.SEEDS}
