"""The steady state of a serving engine against a step-by-step run of the same rules."""

import random

import pytest

from workbench.chips.steady import Load, colocated, disaggregated


def walked(users, answer_tokens, tokens_per_step, step_s, pass_s, most_running, seconds, groups=0):
    """A closed loop of users, walked step by step: prompts go first, then one decoding step of all who run.

    groups: of so many, those that got no prompt decode in the pass; 1: everybody does. Answers begin at
    random ages, so that they do not end together. Returns (time per token, tokens a second).
    """
    rand = random.Random(3)
    left = [rand.uniform(0, answer_tokens) for _ in range(min(users, most_running))]
    waiting, now, done, token_time, tokens = users - len(left), 0.0, 0, 0.0, 0.0
    while now < seconds:
        free = most_running - len(left)
        fresh = min(waiting, free)
        if fresh:
            spent = pass_s(fresh)
            spent = max(spent, step_s(len(left))) if groups else spent
            now += spent
            token_time += spent * len(left)
            busy = rand.sample(range(groups), min(fresh, groups)) if groups > 1 else []
            rides = [groups > 0 and rand.randrange(groups) not in busy for _ in left]
            tokens += tokens_per_step * sum(rides)
            left = [n - tokens_per_step * is_on for n, is_on in zip(left, rides, strict=True)]
            ended = sum(n <= 0 for n in left)
            left = [n for n in left if n > 0] + [answer_tokens] * fresh
            waiting += ended - fresh
            if ended:
                continue  # prompts go first
        spent = step_s(len(left))
        now += spent
        token_time += spent * len(left)
        tokens += tokens_per_step * len(left)
        left = [n - tokens_per_step for n in left]
        ended = sum(n <= 0 for n in left)
        left = [n for n in left if n > 0]
        waiting += ended
        done += ended
    return token_time / tokens, tokens / now


def step_s(running):
    return 0.010 + 0.0001 * running


def pass_s(prompts):
    return 0.05 + 0.03 * prompts


@pytest.mark.parametrize(
    ("users", "answer", "yield_", "most"),
    [(16, 400, 1.0, 999), (64, 200, 1.0, 999), (64, 300, 1.9, 999), (300, 500, 1.0, 128)],
)
def test_a_shared_engine_behaves_as_when_walked_step_by_step(users, answer, yield_, most):
    found = colocated(Load(users, 1000, answer), step_s, yield_, pass_s, 8, most)
    tpot, rate = walked(users, answer, yield_, step_s, pass_s, most, seconds=400)
    assert found.tpot_s == pytest.approx(tpot, rel=0.12)
    assert found.output_tokens_per_s == pytest.approx(rate, rel=0.12)


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize(("users", "answer"), [(16, 400), (64, 300), (120, 300)])
def test_whoever_decodes_in_a_prefill_pass_has_a_step_less_to_wait_for(users, answer, groups):
    def riding(prompts):
        return 1.0 if groups == 1 else max(1 - prompts / groups, 0.0)

    load = Load(users, 1000, answer)
    found = colocated(load, step_s, 1.0, pass_s, 8, 999, riding=riding)
    tpot, rate = walked(users, answer, 1.0, step_s, pass_s, 999, seconds=400, groups=groups)
    assert found.tpot_s == pytest.approx(tpot, rel=0.12)
    assert found.output_tokens_per_s == pytest.approx(rate, rel=0.12)
    assert found.tpot_s < colocated(load, step_s, 1.0, pass_s, 8, 999).tpot_s


def test_waiting_for_full_passes_costs_less_time_a_token():
    load = Load(64, 1000, 200)
    eager = colocated(load, step_s, 1.0, pass_s, 8, 999)
    patient = colocated(load, step_s, 1.0, pass_s, 8, 999, waits_for_prompts=True)
    assert patient.tpot_s < eager.tpot_s


def test_pools_of_their_own_decode_undisturbed():
    load = Load(64, 1000, 200)
    apart = disaggregated(load, step_s, 1.0, 0.001, 0.1, 999)
    # 64 users, a tenth of a second before the first token: nearly all decode, with nothing between steps.
    assert apart.tpot_s == pytest.approx(step_s(apart.running), rel=1e-6)
    assert apart.limit == "users"
    assert apart.output_tokens_per_s == pytest.approx(apart.running / apart.tpot_s, rel=0.01)


def test_the_slower_pool_sets_the_rate():
    slow = disaggregated(Load(1000, 1000, 100), step_s, 1.0, 0.5, 0.5, 99999)
    assert slow.limit == "prefill"
    assert slow.output_tokens_per_s == pytest.approx(100 / 0.5, rel=1e-3)
    assert slow.ttft_s > 100  # the others queue


def test_places_run_out():
    full = colocated(Load(4096, 1000, 200), step_s, 1.0, pass_s, 8, 32)
    assert full.limit == "capacity" and full.running == pytest.approx(32)
    with pytest.raises(ValueError, match="most_running is 0"):
        colocated(Load(1, 1, 1), step_s, 1.0, pass_s, 8, 0)
    with pytest.raises(ValueError, match="most_running is 0"):
        disaggregated(Load(1, 1, 1), step_s, 1.0, 1.0, 1.0, 0)


def test_few_requests_of_spread_lengths_lose_throughput_at_the_end():
    endless = colocated(Load(16, 1000, 200), step_s, 1.0, pass_s, 8, 99)
    short = colocated(Load(16, 1000, 200, requests=32, lengths="spread"), step_s, 1.0, pass_s, 8, 99)
    assert 0.7 < short.output_tokens_per_s / endless.output_tokens_per_s < 0.9
    assert short.tpot_s == endless.tpot_s


def test_equal_requests_come_in_bursts_as_when_walked_step_by_step():
    # 16 users begin together: four passes of four prompts, then 200 steps of all 16, and again.
    found = colocated(Load(16, 1000, 200, lengths="equal"), step_s, 1.0, pass_s, 4, 99)
    burst, decoding = 4 * pass_s(4), 200 * step_s(16)
    assert found.output_tokens_per_s == pytest.approx(16 * 200 / (burst + decoding))
    # The waits of the first of each pass for the rest of the burst: 3, 2, 1 and 0 passes, plus his own share.
    assert found.tpot_s == pytest.approx((decoding + burst * 15 / 32) / 200)
    mixed = colocated(Load(16, 1000, 200), step_s, 1.0, pass_s, 4, 99)
    assert found.tpot_s < mixed.tpot_s


@pytest.mark.parametrize("name", ["users", "input_tokens", "output_tokens"])
def test_a_load_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Load(**({"users": 1, "input_tokens": 1, "output_tokens": 1} | {name: 0}))
