"""The request simulator against queueing theory, a walk step by step, and what must be conserved."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.chips.serving import (
    Deployment,
    Drafts,
    Lengths,
    Limits,
    LinearPace,
    Paging,
    Pool,
    Traffic,
    Transfer,
    draw,
    highest_rate,
    load_rows,
    simulate,
    trace,
)
from workbench.chips.steady import Load, colocated

PACE = LinearPace(0.011, 0.0003, 2e-7, 0.004, 1.3e-5, 1e-9)


def test_one_by_one_prompts_wait_as_in_a_queue_with_one_server():
    """M/D/1: a prompt in service for s seconds, load ρ, waits ρ s / 2 (1 − ρ) on average."""
    service, rho = 0.1, 0.7
    random = np.random.default_rng(5)
    arrival = np.cumsum(random.exponential(service / rho, 40_000))
    prompts = np.full(40_000, 100)
    pool = Pool(LinearPace(pass_token_s=service / 100), chunk_tokens=100)
    outcome = simulate(trace(arrival, prompts, np.ones(40_000)), Deployment(pool))
    wait = outcome.ttft_s.mean() - service
    assert wait == pytest.approx(rho * service / 2 / (1 - rho), rel=0.06)
    assert outcome.prefill_busy == pytest.approx(rho, rel=0.02)


@pytest.mark.parametrize("load", [0.4, 1.0, 1.25])
def test_prompts_by_the_clock_wait_only_above_capacity(load):
    """D/D/1: nobody waits up to ρ = 1; beyond, each waits longer than the one before by s (1 − 1/ρ)."""
    service, n = 0.1, 200
    arrival = np.arange(n) * service / load
    pool = Pool(LinearPace(pass_token_s=service / 100), chunk_tokens=100)
    outcome = simulate(trace(arrival, np.full(n, 100), np.ones(n)), Deployment(pool))
    wait = np.arange(n) * max(service - service / load, 0.0)
    np.testing.assert_allclose(outcome.ttft_s, service + wait, atol=1e-9)


def test_at_an_infinite_rate_all_come_at_once_and_are_served_in_turn():
    requests = draw(Traffic(math.inf, Lengths(100), Lengths(1)), 50, 0)
    assert (requests.arrival_s == 0).all()
    pool = Pool(LinearPace(pass_token_s=1e-3), chunk_tokens=100)
    outcome = simulate(requests, Deployment(pool))
    np.testing.assert_allclose(np.sort(outcome.ttft_s), 0.1 * np.arange(1, 51))
    assert outcome.prefill_busy == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"Traffic: rate_per_s is 0; it must be at least"):
        Traffic(0, Lengths(1), Lengths(1))


def test_prompts_of_two_lengths_wait_by_the_second_moment():
    """M/G/1 (Pollaczek and Khinchine): wait = λ E[s²] / 2 (1 − ρ)."""
    random = np.random.default_rng(6)
    lengths = random.choice([500, 2000], 60_000, p=[0.8, 0.2])
    service, rate = lengths * 1e-4, 0.6 / 0.08  # the mean prompt has 800 tokens and takes 0.08 s
    arrival = np.cumsum(random.exponential(1 / rate, 60_000))
    # Chunks divide both lengths, so that no pass holds two prompts.
    pool = Pool(LinearPace(pass_token_s=1e-4), chunk_tokens=500)
    outcome = simulate(trace(arrival, lengths, np.ones(60_000)), Deployment(pool))
    assert outcome.computed_tokens == lengths.sum()
    wait = (outcome.ttft_s - service).mean()
    assert wait == pytest.approx(rate * (service**2).mean() / 2 / (1 - rate * service.mean()), rel=0.1)


def walked(requests, pace, paging, chunk, order):
    """The same rules, one step at a time and without jumps; blocks reserved. Returns (first, finish)."""
    n = len(requests)
    first, finish = np.full(n, np.nan), np.full(n, np.nan)
    queue, running, now, came, after_pass = [], {}, 0.0, 0, False
    left = requests.prompt_tokens.astype(int).tolist()
    made = [0] * n
    prompt, output = requests.prompt_tokens.tolist(), requests.output_tokens.tolist()
    admitted = set()

    def blocks(i):
        return -(-(prompt[i] + output[i] - 1) // paging.block_tokens)

    while np.isnan(finish).any():
        while came < n and requests.arrival_s[came] <= now + 1e-12:
            queue.append(came)
            came += 1
        if not queue and not running:
            now = float(requests.arrival_s[came])
            continue
        pieces, budget = [], chunk
        if not (order == "in turn" and after_pass and running):
            for i in queue:
                if budget <= 0:
                    break
                if i not in admitted:
                    if (
                        len(admitted) >= paging.slots
                        or sum(map(blocks, admitted)) + blocks(i) > paging.blocks
                    ):
                        break
                    admitted.add(i)
                pieces.append((i, min(left[i], budget)))
                budget -= pieces[-1][1]
        after_pass = bool(pieces)
        if pieces:
            new = sum(p for _, p in pieces)
            seen = sum(p * (prompt[i] - left[i] + p / 2) for i, p in pieces) / new
            now += pace.pass_s(new, max(p for _, p in pieces), seen)
            for i, p in pieces:
                left[i] -= p
                if left[i] == 0:
                    queue.remove(i)
                    first[i], made[i] = now, 1
                    if output[i] == 1:
                        finish[i] = now
                        admitted.remove(i)
                    else:
                        running[i] = True
            continue
        if not running:
            raise AssertionError("stuck")
        now += pace.step_s(len(running), sum(prompt[i] + made[i] - 1 for i in running) / len(running))
        for i in list(running):
            made[i] += 1
            if made[i] == output[i]:
                finish[i] = now
                del running[i]
                admitted.remove(i)
    return first, finish


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), order=st.sampled_from(["prompts first", "in turn"]),
    rate=st.sampled_from([1.0, 8.0, 40.0]), slots=st.sampled_from([2, 7, 1000]),
    chunk=st.sampled_from([64, 777, 10_000]), blocks=st.sampled_from([120, 10_000]),
)  # fmt: skip
def test_jumps_give_the_times_of_single_steps(seed, order, rate, slots, chunk, blocks):
    traffic = Traffic(
        rate, Lengths(300, "lognormal", 1.0, 900), Lengths(40, "uniform", most=90), burstiness=1.7
    )
    requests = draw(traffic, 60, seed)
    paging = Paging(slots, blocks, 16, is_reserved=True)
    outcome = simulate(requests, Deployment(Pool(PACE, paging=paging, chunk_tokens=chunk, order=order)))
    first, finish = walked(requests, PACE, paging, chunk, order)
    np.testing.assert_allclose(outcome.first_s, first, rtol=1e-9)
    np.testing.assert_allclose(outcome.finish_s, finish, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), blocks=st.sampled_from([80, 100, 200, 1000]), drafts=st.sampled_from([0, 3]),
    split=st.booleans(), order=st.sampled_from(["prompts first", "in turn"]), groups=st.sampled_from([1, 3]),
    instances=st.sampled_from([1, 2]),
)  # fmt: skip
def test_every_request_ends_once_and_no_token_is_lost(seed, blocks, drafts, split, order, groups, instances):
    traffic = Traffic(
        30.0, Lengths(300, "lognormal", 1.0, 900), Lengths(150, "uniform", most=300), burstiness=2
    )
    requests = draw(traffic, 120, seed)
    pool = Pool(
        PACE, paging=Paging(50, blocks, 16), chunk_tokens=200, groups=groups, order=order, instances=instances
    )
    deployment = Deployment(
        pool, pool if split else None, Transfer(10.0, 0.0, 1e6, 0.01), Drafts(drafts, 0.6)
    )
    outcome = simulate(requests, deployment, seed=seed)
    assert (outcome.arrival_s < outcome.first_s).all() and (outcome.first_s <= outcome.finish_s).all()
    computed = requests.prompt_tokens.sum()
    assert (
        outcome.computed_tokens == computed if not outcome.preemptions else outcome.computed_tokens > computed
    )
    assert outcome.running([outcome.finish_s.max() + 1])[0] == 0
    again = simulate(requests, deployment, seed=seed)
    np.testing.assert_array_equal(again.finish_s, outcome.finish_s)


def test_short_memory_sends_the_youngest_away_and_costs_time():
    requests = draw(Traffic(30.0, Lengths(300), Lengths(400)), 60, 1)
    wide = simulate(requests, Deployment(Pool(PACE, paging=Paging(50, 10_000, 16))))
    tight = simulate(requests, Deployment(Pool(PACE, paging=Paging(50, 300, 16))))
    assert wide.preemptions == 0 and tight.preemptions > 0
    assert tight.computed_tokens > wide.computed_tokens
    assert tight.seconds > wide.seconds
    # The eldest is never sent away: it ends as if it had come alone with those who came with it.
    assert tight.finish_s[0] <= tight.finish_s.min() + 1e-9


def test_a_lone_request_takes_its_pass_and_its_steps():
    outcome = simulate(trace([3.0], [700], [11]), Deployment(Pool(PACE)))
    assert outcome.ttft_s[0] == pytest.approx(PACE.pass_s(700, 700, 350))
    steps = sum(PACE.step_s(1, 700 + i) for i in range(10))
    assert outcome.tpot_s[0] * 10 == pytest.approx(steps)
    assert outcome.steps == 10


def test_separate_pools_send_one_cache_after_the_other():
    transfer = Transfer(token_bytes=100.0, request_bytes=50.0, byte_per_s=1e5, delay_s=0.25)
    pool = Pool(LinearPace(0.01, pass_token_s=1e-5))
    outcome = simulate(trace([0.0, 0.0], [1000, 1000], [2, 2]), Deployment(pool, pool, transfer))
    # Both prompts in one pass of 20 ms; the second cache leaves when the first is gone.
    np.testing.assert_allclose(outcome.first_s, 0.02)
    sent = (1000 * 100 + 50) / 1e5
    np.testing.assert_allclose(outcome.finish_s, [0.02 + sent + 0.25 + 0.01, 0.02 + 2 * sent + 0.25 + 0.01])


def test_prompts_do_not_stop_answers_on_chips_of_their_own():
    requests = draw(Traffic(6.0, Lengths(6000), Lengths(200)), 300, 2)
    pace = LinearPace(0.01, 1e-4, pass_token_s=2e-5)
    shared = simulate(requests, Deployment(Pool(pace, instances=2)))
    apart = simulate(requests, Deployment(Pool(pace), Pool(pace)))
    assert apart.quantiles((0.99,))[0]["tpot_s"] < 0.6 * shared.quantiles((0.99,))[0]["tpot_s"]


def test_taking_turns_keeps_the_longest_pause_short():
    requests = draw(Traffic(3.0, Lengths(30_000, "lognormal", 0.5, 100_000), Lengths(100)), 100, 3)
    pace = LinearPace(0.01, 1e-4, pass_token_s=1e-5)
    first = simulate(requests, Deployment(Pool(pace, chunk_tokens=2048)))
    turns = simulate(requests, Deployment(Pool(pace, chunk_tokens=2048, order="in turn")))
    assert np.nanmax(turns.tpot_s) < np.nanmax(first.tpot_s)
    assert turns.ttft_s.mean() > first.ttft_s.mean()


@pytest.mark.parametrize("users", [8, 64])
def test_a_fixed_number_of_readers_gives_the_steady_state(users):
    """Against the fixed point, which shares no code with the simulator."""
    requests = trace(np.zeros(3000), np.full(3000, 1000), np.random.default_rng(0).integers(100, 500, 3000))
    pace = LinearPace(0.010, 1e-4, pass_base_s=0.05, pass_token_s=3e-5)
    outcome = simulate(requests, Deployment(Pool(pace)), users=users)
    state = colocated(
        Load(users, 1000, float(requests.output_tokens.mean())), lambda n: pace.step_s(n, 0), 1.0,
        lambda n: pace.pass_s(1000 * n, 0, 0), 8, 10**6,
    )  # fmt: skip
    lasted = outcome.finish_s - outcome.first_s
    assert lasted.sum() / (outcome.output_tokens - 1).sum() == pytest.approx(state.tpot_s, rel=0.1)
    assert outcome.output_tokens_per_s == pytest.approx(state.output_tokens_per_s, rel=0.1)


def test_readers_by_number_never_are_more_than_that():
    requests = trace(np.zeros(40), np.full(40, 50), np.full(40, 9))
    outcome = simulate(requests, Deployment(Pool(PACE)), users=3)
    moments = np.linspace(0, outcome.seconds, 999)
    assert outcome.running(moments).max() == 3


def test_the_law_of_little_holds_for_the_times_reported():
    requests = draw(Traffic(20.0, Lengths(500, "lognormal"), Lengths(60, "uniform")), 8000, 4)
    outcome = simulate(requests, Deployment(Pool(PACE)))
    moments = np.linspace(outcome.arrival_s[200], outcome.arrival_s[-1], 200_001)
    stay = (outcome.finish_s - outcome.arrival_s).mean()
    assert outcome.running(moments).mean() == pytest.approx(requests.rate_per_s * stay, rel=0.03)


def test_goodput_falls_beyond_the_highest_rate():
    traffic = Traffic(1.0, Lengths(800), Lengths(80))
    deployment, limits = Deployment(Pool(PACE)), Limits(0.5, 0.03)
    best = highest_rate(traffic, deployment, limits, count=400)
    below, above = load_rows(traffic, deployment, (0.95 * best, 1.6 * best), limits, count=400)
    assert below["attainment"] >= 0.9 > above["attainment"]
    with pytest.raises(
        ValueError, match=r"highest_rate: with nobody else there, 90% of the requests wait up to"
    ):
        highest_rate(traffic, deployment, Limits(0.001, 1.0), count=20)


def test_what_cannot_be_served_is_refused():
    with pytest.raises(
        ValueError, match=r"request 0 needs 3 blocks of 16 tokens; the instance has 2; use more"
    ):
        simulate(trace([0], [40], [2]), Deployment(Pool(PACE, paging=Paging(1, 2, 16))))
    with pytest.raises(ValueError, match="users is 0"):
        simulate(trace([0], [4], [2]), Deployment(Pool(PACE)), users=0)
    with pytest.raises(ValueError, match="order 'random' is unknown"):
        Pool(PACE, order="random")
    with pytest.raises(ValueError, match="slots is 0"):
        Paging(0, 1)
    assert math.isinf(Pool(PACE).paging.blocks)
