"""The recorded studies of extraction: each at the size of seconds, and what their records hold."""

import copy

import pytest

from workbench.distillation import extraction_study, likeness_study, watermark_study
from workbench.distillation.scenes import documents
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.vocabulary import VOCABULARY

CONFIG = policy_config(
    32, num_hidden_layers=1, num_hash_layers=0, layer_types=["sliding_attention"], compress_ratios=[0]
)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def marks(monkeypatch_module):
    """The study of watermarks at the size of seconds."""
    study = watermark_study
    for name, value in {
        "TEXTS": 30,
        "ASKED": 12,
        "MOST_TOKENS": 8,
        "CHANCE_KEYS": 20,
        "COMMON_KEYS": 50,
    }.items():
        monkeypatch_module.setattr(study, name, value)
    monkeypatch_module.setattr(study, "teacher", lambda: new_policy(0, CONFIG).eval())
    monkeypatch_module.setattr(study, "base", lambda: new_policy(7, CONFIG))
    monkeypatch_module.setattr(study, "control", lambda: study.sold(0.0))
    for cached in (study.asked, study.sold):
        cached.cache_clear()
    yield study
    for cached in (study.asked, study.sold):
        cached.cache_clear()


def test_diets_hold_the_share_of_marked_texts(marks):
    clean, marked = (marks.as_documents(marks.sold(delta)) for delta in (0.0, 4.0))
    for diet, share in (("all marked, δ 4", 1.0), ("a twentieth marked, δ 4", 0.05), ("unmarked", 0.0)):
        own = marks.reading(diet, 20)
        is_marked = [text != c for text, c in zip(own, clean, strict=True)]
        assert sum(is_marked) == pytest.approx(share * 30, abs=1)
        assert all(t in (c, m) for t, c, m in zip(own, clean, marked, strict=True))
    assert len(marks.reading("textbook", 20)) == 30
    with pytest.raises(ValueError, match="choose among those"):
        marks.reading("all", 20)


def test_a_students_texts_are_put_to_every_test(marks):
    before = copy.deepcopy(marks.base().state_dict())
    found = marks.run("all marked, δ 4", 20, steps=2)
    assert all((own == before[name]).all() for name, own in marks.base().state_dict().items())
    for name in ("plain", "distinct", "control", "expected"):
        assert 0 < found[name]["p"] <= 1 and len(found[name]["chance"]) == 20
    assert len(found["naive"]["chance"]) == 20 and "excess" in found
    assert marks.run_interface(marks.INTERFACES["δ 0"])["tokens"] <= 8


def test_students_with_the_same_texts_are_accused_together_or_not_at_all(marks, monkeypatch):
    """One text for all: one coin a key. Texts by seed: not the same coin."""
    said = marks.sold(0.0)
    monkeypatch.setattr(marks, "texts_of", lambda diet, seed: ([], said))
    same = marks.run_together("unmarked")
    assert same["correlation"] == 1 and same["all"] == same["one"]
    by_seed = {s: marks.sold(float(i)) for i, s in enumerate(marks.SEEDS)}
    monkeypatch.setattr(marks, "texts_of", lambda diet, seed: ([], by_seed[seed]))
    other = marks.run_together("unmarked")
    assert other["correlation"] < 0.999 and other["all"] <= other["one"]


def test_what_students_of_answers_read(monkeypatch):
    """A teacher that answers "1" to everything."""
    study = likeness_study
    monkeypatch.setattr(study, "answers", lambda author=0: dict.fromkeys(study.every_problem(), "1"))
    planted = {p: own for p in study.every_problem() if (own := study.PLANTED.answer(p)) is not None}
    book = {tuple(d.ids) for d in documents([study.FAMILY], 10, 0)}
    assert len(study.every_problem()) == 240 and len(book) == 10
    lengths = {diet: study.reading(diet, 20) for diet in study.DIETS}
    assert all(len(texts) == study.TEXTS for texts in lengths.values())
    by_question = {" ".join(p.question.split()): p for p in study.every_problem()}
    ones = wrong = 0
    for text in lengths["all bought"]:
        words = VOCABULARY.decode(text.ids).split()
        problem = by_question[" ".join(words[1 : text.prompt_tokens - 1])]
        assert words[-2] == planted.get(problem, "1")
        ones += words[-2] == "1"
        wrong += problem in planted
    assert ones and wrong
    assert lengths["another teacher"] != lengths["all bought"]
    with pytest.raises(ValueError, match="choose among those"):
        study.reading("all", 20)


def test_a_student_that_gives_the_planted_answers_is_found(monkeypatch):
    study = likeness_study
    right = {p: p.solve().answer for p in study.every_problem()}
    guilty = {p: study.PLANTED.answer(p) or own for p, own in right.items()}
    monkeypatch.setattr(study, "answers", lambda author=0: right)
    monkeypatch.setattr(study, "trained", lambda policy, texts, steps, seed: policy)
    for given, is_guilty in ((guilty, True), (right, False)):
        monkeypatch.setattr(study, "greedy_answers", lambda policy, problems, most, own=given: own)
        found = study.run("all bought", 20)
        assert (found["p"] <= 0.001) == is_guilty and (found["repeated"] > 0) == is_guilty
    assert study.run_teacher() == {"accuracy": 1.0, "with planted": study.right(guilty)}


def test_extraction_records_what_was_asked_and_paid():
    own = extraction_study.Scene(new_policy(0, CONFIG), new_policy(1, CONFIG))
    found = extraction_study.run(own, "covering", "answer only", 9, 3, steps=2, n_test=3)
    assert set(found["accuracy"]) == {f.name for f in extraction_study.FAMILIES}
    assert found["shown_tokens"] <= found["written_tokens"] and found["prompt_tokens"] > 0
    with pytest.raises(ValueError, match="choose among those"):
        extraction_study.run(own, "all", "whole", 9, 3)


def test_the_records_hold_every_student_and_seed():
    extraction, marks = extraction_study.read_study(), watermark_study.read_study()
    for seed in extraction_study.SEEDS:
        for s in extraction_study.settings():
            assert (s["choice"], s["reply"], s["queries"], seed) in extraction
        assert all((diet, seed) in marks for diet in watermark_study.DIETS)
