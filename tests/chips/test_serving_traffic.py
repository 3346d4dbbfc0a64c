"""Drawn requests have the means, gaps and conversations asked for; drafts yield what they should."""

import numpy as np
import pytest

from workbench.accounting.speculation import tokens_per_step
from workbench.chips.serving import Drafts, Lengths, Traffic, drafts_of, draw, trace
from workbench.chips.serving.speculation import answer_steps


@pytest.mark.parametrize("burstiness", [0.0, 0.5, 1.0, 3.0])
def test_gaps_have_the_rate_and_the_burstiness(burstiness):
    requests = draw(Traffic(7.0, Lengths(10), Lengths(10), burstiness), 60_000, 1)
    gaps = np.diff(requests.arrival_s)
    assert gaps.mean() == pytest.approx(1 / 7, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness, abs=0.07)


@pytest.mark.parametrize(("shape", "spread"), [("fixed", 0.0), ("uniform", 3**-0.5), ("lognormal", 0.8)])
def test_lengths_have_their_mean_and_spread(shape, spread):
    drawn = Lengths(900, shape, variation=0.8).draw(200_000, np.random.default_rng(2))
    assert drawn.mean() == pytest.approx(900, rel=0.01)
    assert drawn.std() / drawn.mean() == pytest.approx(spread, abs=0.02)
    assert drawn.min() >= 1


def test_a_turn_repeats_all_that_was_said_before():
    traffic = Traffic(
        5.0, Lengths(100, "lognormal"), Lengths(50, "uniform"), turns=4.0, pause_s=3.0, shared_tokens=30
    )
    requests = draw(traffic, 3000, 3)
    assert (np.diff(requests.arrival_s) >= 0).all()
    for session in np.unique(requests.conversation)[:100]:
        said, mine = 30, np.flatnonzero(requests.conversation == session)
        for turn, i in enumerate(mine):
            assert requests.repeated_tokens[i] == (said if turn else 0)
            assert requests.prompt_tokens[i] > requests.repeated_tokens[i]
            said = requests.prompt_tokens[i] + requests.output_tokens[i]
    assert len(requests) / len(np.unique(requests.conversation)) == pytest.approx(4, rel=0.15)


def test_a_conversation_that_outgrows_the_longest_prompt_starts_afresh():
    traffic = Traffic(5.0, Lengths(400), Lengths(100), turns=20.0, longest_prompt=1000)
    requests = draw(traffic, 500, 3)
    assert requests.prompt_tokens.max() <= 1000
    assert (requests.repeated_tokens < requests.prompt_tokens).all()
    assert (requests.repeated_tokens == 0).sum() > len(np.unique(requests.conversation))


def test_the_same_seed_draws_the_same_requests():
    traffic = Traffic(5.0, Lengths(400, "lognormal"), Lengths(100, "uniform"), turns=2)
    one, two, other = (draw(traffic, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.arrival_s, two.arrival_s)
    assert (one.prompt_tokens != other.prompt_tokens).any()


@pytest.mark.parametrize(
    ("count", "acceptance"), [(1, 0.7), (3, 0.5), (5, 0.9), (2, 0.0), (2, 1.0), (0, 0.3)]
)
def test_drafts_yield_the_closed_form_on_average(count, acceptance):
    tokens = np.full(2000, 5000)
    steps = answer_steps(tokens, Drafts(count, acceptance), 0)
    assert tokens.sum() / steps.sum() == pytest.approx(tokens_per_step(acceptance, count), rel=0.005)


def test_steps_of_an_answer_are_those_of_a_walk_by_chance():
    """The distribution for a short answer against a plain loop."""
    random = np.random.default_rng(9)

    def walk():
        made = steps = 0
        while made < 7:
            accepted = 0
            while accepted < 2 and random.random() < 0.6:
                accepted += 1
            made, steps = made + 1 + accepted, steps + 1
        return steps

    slow = np.bincount([walk() for _ in range(20_000)], minlength=8) / 20_000
    fast = np.bincount(answer_steps(np.full(200_000, 7), Drafts(2, 0.6), 1), minlength=8) / 200_000
    np.testing.assert_allclose(fast, slow, atol=0.012)
    assert answer_steps(np.array([0, 1]), Drafts(2, 0.6), 1).tolist() == [0, 1]


def test_a_measured_yield_gives_its_acceptance():
    assert drafts_of(1.7, 1).acceptance == pytest.approx(0.7)
    assert drafts_of(2.44, 3).tokens_per_step == pytest.approx(2.44)
    with pytest.raises(ValueError, match=r"accepted_length is 2.5; 1 drafts yield 1 to 2"):
        drafts_of(2.5, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Lengths(0), "mean is 0"),
        (lambda: Lengths(5, "normal"), "shape 'normal' is unknown"),
        (lambda: Lengths(5, "lognormal", 0), "variation is 0"),
        (lambda: Traffic(0, Lengths(1), Lengths(1)), "rate_per_s is 0"),
        (lambda: Traffic(1, Lengths(1), Lengths(1), turns=0.5), "turns is 0.5"),
        (lambda: draw(Traffic(1, Lengths(1), Lengths(1)), 0, 0), "count is 0"),
        (lambda: trace([1], [0], [1]), "a prompt or an answer is empty"),
        (lambda: trace([1], [1, 2], [1]), "there must be one of each"),
        (lambda: trace([], [], []), "one common length above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
