"""The studies of pre-training from end to end, tiny; their records whole."""

import math

import pytest

from workbench.config import CSA
from workbench.training.corpus import load_corpus
from workbench.training.studies import __main__ as command
from workbench.training.studies import contexts, record, stages, suites, text
from workbench.training.studies.variants import ATTENTIONS, VARIANTS, base_config, row_flop, steps_of
from workbench.training.tasks import Sample


@pytest.fixture(scope="module")
def corpus():
    words = "the cat sat on a mat and saw that dog run to it".split()
    texts = [" ".join(words[(i * j + j) % len(words)] for j in range(400)) + f" {i}" for i in range(1, 9)]
    return load_corpus(300, texts=texts, held_out_share=0.3)


@pytest.fixture
def small(monkeypatch):
    for module, changes in {
        text: {"ROWS": 2, "CURVE_ROWS": 2, "END_ROWS": 4, "MEASURES": 2},
        suites: {"ROWS": 2, "N_DOCUMENTS": 140, "N_ASKED": 12},
        contexts: {"ROWS": 2, "N_DOCUMENTS": 140, "N_ASKED": 8, "N_OBSERVED": 3},
        stages: {"ROWS": 4, "HELD_OUT_TOKENS": 1024},
    }.items():
        for name, value in changes.items():
            monkeypatch.setattr(module, name, value)


def test_a_run_on_text_repeats_to_the_bit_and_tells_what_it_took(corpus, small):
    found = text.run_text("base", 3, corpus, steps=6)
    again = text.run_text("base", 3, corpus, steps=6)
    assert found == again and found != text.run_text("base", 4, corpus, steps=6)
    assert found["steps"] == 6 and len(found["loss"]) == 2 and len(found["held_out"]) == 2
    config = base_config(corpus.tokenizer.vocab_size)
    assert found["flop"] == pytest.approx(3 * 6 * 2 * row_flop(config))
    assert found["held_out"][-1]["tokens"] == found["tokens"]
    assert 0 < found["largest_logit"][0] <= found["logit_bound"][0]


def test_drafts_and_fewer_steps_where_they_belong(corpus, small):
    drafted = text.run_text("with MTP", 0, corpus, steps=5)["drafts"]
    assert set(drafted) == {"greedy", "sampled"} and 0 <= drafted["sampled"]["acceptance"] <= 1
    base = base_config(512)
    for name, variant in VARIANTS.items():
        config = base.replace(**variant.config)
        steps = steps_of(variant, config, base, 1000)
        if variant.equal_flop:
            assert steps * row_flop(config) == pytest.approx(1000 * row_flop(base), rel=1e-3), name
        else:
            assert steps == 1000


def test_documents_of_the_suites_keep_to_their_own_ids():
    assert suites.shifted(Sample([0, 3], [1]), 5) == Sample([5, 8], [1])
    others = suites.copy_and_topic(4, 0)
    ids = {name: {i for s in found for i in s.ids} for name, found in others.items()}
    needles = {i for s in suites.needle_documents(14, 0, suites.DISTANCES, suites.COUNTS) for i in s.ids}
    assert max(needles) < min(ids["copy"]) <= max(ids["copy"]) < min(ids["topic"])
    assert max(ids["topic"]) < suites.VOCABULARY
    assert len(others["copy"]) == 8 and len(others["topic"]) == 4
    asked = suites.needle_documents(14, 0, [24], [3], is_held_out=True)
    assert len(asked) == 14 and all(len(s.ids) == 12 + 24 + 3 and len(s.answers) == 1 for s in asked)


def test_a_run_on_suites_asks_what_its_suite_is_about(small):
    found = suites.run_suites("needles: CSA only", 0, steps=9)
    assert list(found["needles"]) == [str(d) for d in suites.DISTANCES] and "copy" not in found
    assert found["steps"] == 8
    found = suites.run_suites("copy and topic: no window", 0, steps=9)
    assert all(0 <= found[task] <= 1 for task in ("copy", "topic")) and found["steps"] == 9
    assert {run.split(": ")[1] for run in suites.RUNS} == set(ATTENTIONS)
    wanted = record.STUDIES["suites"].wanted(record.SEEDS)
    assert len(wanted) == 3 * len(suites.RUNS) and ("needles: dense", 2) in wanted


def test_contexts_go_through_three_phases(small):
    steps = {"dense": 16, "warm-up": 2, "sparse": 2}
    phases = contexts.recipes(steps)
    assert [(r.attention, r.indexer) for r in phases.values()] == [
        ("dense", "off"), ("dense", "alone"), ("sparse", "beside")
    ]  # fmt: skip
    found = contexts.run_contexts(0, steps=steps, asked=(0, 24))
    assert len(found["loss"]) == 20 and set(found["selecting"]) == {"0", "24"}
    # With no more entries than the choice holds, all are chosen.
    assert found["needle_selected"]["0"] == 1.0
    assert contexts.suite_config().attention_types.count(CSA) == 1


def test_stages_are_those_of_the_plan_and_end_measured(corpus, small):
    names = {way: [s.name for s in stages.stages_of(way)] for way in stages.WAYS}
    assert names["curriculum"] == ["dense 64", "warm-up 128", "sparse 128", "sparse 256"]
    assert names["no warm-up"] == ["dense 64", "sparse 128", "sparse 256"]
    assert names["dense throughout"] == ["dense 64", "dense 128", "dense 256"]
    assert names["sparse from the start"] == ["sparse 64", "sparse 128", "sparse 256"]
    assert names["short rows only"] == ["dense 64"]
    totals = {
        way: sum(s.recipe.rate.total_steps for s in stages.stages_of(way) if "warm" not in s.name)
        for way in stages.WAYS
    }
    assert set(totals.values()) == {sum(stages.STEPS)}
    found = stages.run_stages("curriculum", 0, corpus, steps=(3, 2, 2), warmup=2)
    assert [row["stage"] for row in found["after"]] == ["start", *names["curriculum"]]
    assert [row["step"] for row in found["after"]] == [0, 3, 5, 7, 9] and len(found["loss"]) == 9
    assert all(math.isfinite(row["loss_256"]) and 0 < row["recall"] <= 1 for row in found["after"])


def test_what_is_recorded_is_not_run_again(tmp_path, monkeypatch, capsys):
    ran = []

    def run(name, seed, _):
        ran.append((name, seed))
        return {"held_out_loss": seed}

    study = record.Study(("a", "b"), run, lambda found: f"{found['held_out_loss']}", needs_text=False)
    monkeypatch.setitem(record.STUDIES, "text", study)
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    command.main(["text", "--seeds", "1", "--only", "a"])
    command.main(["text", "--seeds", "1", "2"])
    assert ran == [("a", 1), ("b", 1), ("a", 2), ("b", 2)] and "seed 2 b" in capsys.readouterr().out
    found = record.read_study("text")
    assert found["a", 2]["held_out_loss"] == 2 and found["a", 2]["cpu_seconds"] >= 0
    with pytest.raises(ValueError, match="read_study: got 'poems'; it needs one of"):
        record.read_study("poems")


@pytest.mark.parametrize("name", record.STUDIES)
def test_the_record_has_every_run(name):
    study = record.STUDIES[name]
    assert set(study.wanted(study.seeds)) <= set(record.read_study(name))
