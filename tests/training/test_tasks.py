"""Every task is solved by its solver from the tokens before, and by guessing as often as it says."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.training.tasks import (
    SUITE,
    AssociativeRecall,
    Induction,
    LocalCopy,
    ModularAddition,
    Needles,
    Sample,
    Topic,
    draw_samples,
    score,
)

EVERY_TASK = pytest.mark.parametrize("task", SUITE.values(), ids=SUITE)


def playing(choose):
    """A model whose likeliest next token is choose(tokens so far), for documents of one length a row."""

    def model(ids):
        logits = torch.zeros(*ids.shape, 64)
        for row, tokens in enumerate(ids.tolist()):
            for place in range(len(tokens)):
                logits[row, place, choose(tokens[: place + 1])] = 50
        return logits

    return model


@EVERY_TASK
def test_the_solver_knows_every_answer_and_the_vocabulary_holds(task):
    for is_held_out in (False, True):
        for sample in draw_samples(task, 50, seed=1, is_held_out=is_held_out):
            assert sample.answers
            assert [task.solve(sample.ids[:place]) for place in sample.answers] == [
                sample.ids[place] for place in sample.answers
            ]
            assert min(sample.ids) >= 0 and max(sample.ids) < task.vocab_size <= 64


@EVERY_TASK
def test_draws_repeat_and_differ_between_seeds_and_sides(task):
    one = draw_samples(task, 20, seed=1)
    assert one == draw_samples(task, 20, seed=1)
    assert one != draw_samples(task, 20, seed=2)
    assert one != draw_samples(task, 20, seed=1, is_held_out=True)


def test_the_topic_has_more_words_than_any_other_even_where_lots_often_tie():
    task = Topic(length=4, n_topics=3, words_per_topic=2, share=0.1)
    for sample in draw_samples(task, 200, seed=0):
        topics = sorted(sum((word - 4) // 2 == t for word in sample.ids[:4]) for t in range(3))
        assert topics[-1] > topics[-2]
        assert task.solve(sample.ids[:-1]) == sample.ids[-1]


# What a guesser may use that does not read the question: the candidates of the document or of the task.
CANDIDATES = {
    "associative recall": lambda task, ids: ids[1 : 2 * task.n_pairs : 2],
    "needles": lambda task, ids: [ids[i + 2] for i, token in enumerate(ids) if token == 1],
    "local copy": lambda task, ids: range(task.n_symbols),
    "induction": lambda task, ids: ids[1 : task.length],
    "topic": lambda task, ids: range(1, 1 + task.n_topics),
    "modular addition": lambda task, ids: range(task.modulus),
}


@pytest.mark.parametrize("name", SUITE)
def test_a_guesser_is_right_as_often_as_chance_says(name):
    task, rng = SUITE[name], random.Random(7)
    samples = draw_samples(task, 1500, seed=3, is_held_out=True)
    asked = [(CANDIDATES[name](task, s.ids), s.ids[place]) for s in samples for place in s.answers]
    right = [rng.choice(candidates) == answer for candidates, answer in asked]
    assert {len(candidates) for candidates, _ in asked} == {round(1 / task.chance)}
    deviation = (task.chance * (1 - task.chance) / len(right)) ** 0.5
    assert abs(sum(right) / len(right) - task.chance) < 4 * deviation


def test_no_candidate_is_better_than_another():
    # A guesser that always takes the same candidate does no better, so chance is the best one can do.
    for name, task in SUITE.items():
        samples = draw_samples(task, 1500, seed=4, is_held_out=True)
        asked = [(CANDIDATES[name](task, s.ids), s.ids[place]) for s in samples for place in s.answers]
        for i in range(len(asked[0][0])):
            share = sum(candidates[i] == answer for candidates, answer in asked) / len(asked)
            assert abs(share - task.chance) < 5 * (task.chance / len(asked)) ** 0.5, name


def test_needles_lie_as_far_back_as_asked():
    task = Needles(n_needles=2, haystack_tokens=11, distance=7)
    places = set()
    for sample in draw_samples(task, 400, seed=0):
        marks = [i for i, token in enumerate(sample.ids) if token == 1]
        assert len(marks) == 2 and sample.ids.index(0) == 18
        assert marks[1] - marks[0] >= 3 and marks[1] + 3 <= 11
        places.add(tuple(marks))
    assert len(places) == 21  # every way to put two needles among five tokens of filler


def test_a_copy_can_not_be_found_by_its_last_symbol_alone():
    def after_last_like_it(tokens):
        earlier = [i for i, token in enumerate(tokens[:-1]) if token == tokens[-1]]
        return tokens[earlier[-1] + 1] if earlier else 0

    found = score(playing(after_last_like_it), draw_samples(LocalCopy(), 100, seed=0))
    assert found.accuracy < 0.5


def test_held_out_sums_are_never_trained_on():
    task = ModularAddition()
    train, held_out = (
        {(s.ids[p - 3], s.ids[p - 2]) for s in samples for p in s.answers}
        for samples in (draw_samples(task, 3000, 0, is_held_out=side) for side in (False, True))
    )
    assert not train & held_out
    assert len(train) == 13 * 10 and len(held_out) == 13 * 3
    sums = [(a + b) % 13 for a, b in held_out]
    assert {sums.count(c) for c in range(13)} == {3}


@pytest.mark.parametrize("name", SUITE)
def test_the_solver_scores_all_and_its_opposite_none(name):
    task = SUITE[name]
    samples = draw_samples(task, 6, seed=5)

    def answer(tokens):  # most prefixes ask nothing, and a solver may then fail
        try:
            return task.solve(tokens)
        except (ValueError, IndexError):
            return 0

    best = score(playing(answer), samples, rows=4)
    assert (best.right, best.asked) == (sum(len(s.answers) for s in samples),) * 2
    assert best.loss < 1e-6 and best.accuracy == 1
    worst = score(playing(lambda tokens: (answer(tokens) + 1) % 64), samples, rows=4)
    assert worst.right == 0 and worst.loss == pytest.approx(50, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=7), min_size=1, max_size=5), st.integers(1, 3)
)
def test_scores_do_not_depend_on_padding_or_grouping(documents, rows):
    samples = [Sample(ids, [len(ids) - 1]) for ids in documents]

    def model(ids):  # predicts one more than the last token; its logits depend on no later token
        return torch.nn.functional.one_hot((ids + 1) % 10, 10) * 3.0

    found = score(model, samples, rows=rows)
    right = [(d[-2] + 1) % 10 == d[-1] for d in documents]
    log_z = torch.tensor([3.0] + [0.0] * 9).logsumexp(0).item()
    assert (found.right, found.asked) == (sum(right), len(right))
    assert found.loss == pytest.approx(sum(log_z - 3.0 * r for r in right) / len(right), abs=1e-5)


def test_labels_are_the_answers():
    sample = draw_samples(Induction(length=4, n_questions=2), 1, seed=0)[0]
    assert sample.labels == [-100] * 6 + [sample.ids[6], -100, -100, sample.ids[9]]


@pytest.mark.parametrize(
    ("task", "sizes", "message"),
    [
        (AssociativeRecall, dict(n_pairs=9, n_values=8), "AssociativeRecall: got 9 pairs"),
        (Needles, dict(haystack_tokens=8), "Needles: got haystack_tokens=8"),
        (Needles, dict(n_questions=0), "Needles: got 3 pairs"),
        (LocalCopy, dict(n_symbols=1), "LocalCopy: got length=12, n_symbols=1"),
        (Induction, dict(length=40), "Induction: got length=40"),
        (Topic, dict(n_topics=1), "Topic: got length=40, n_topics=1"),
        (ModularAddition, dict(held_out_share=0.0), "ModularAddition: got modulus=13"),
    ],
)
def test_tasks_that_cannot_be_asked_are_refused(task, sizes, message):
    with pytest.raises(ValueError, match=f"^{message}.*; correct the one outside"):
        task(**sizes)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match=r"^draw_samples: got count=0"):
        draw_samples(Topic(), 0, seed=0)
    with pytest.raises(ValueError, match=r"^score: got no samples"):
        score(lambda ids: ids, [])
