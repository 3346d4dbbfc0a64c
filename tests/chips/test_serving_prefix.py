"""Prefixes on disk: the report's three policies, counted by hand and against a list of what was written."""

import numpy as np
import pytest

from workbench.accounting.kv_cache import kv_cache_bytes
from workbench.chips import Mapping, load_cluster
from workbench.chips.engines import engine
from workbench.chips.serving import (
    Deployment,
    Disk,
    Lengths,
    LinearPace,
    Pool,
    PrefixStore,
    Traffic,
    draw,
    paging_of,
    prefix_policy,
    simulate,
)
from workbench.config import load_config

FLASH = load_config("deepseek-v4-flash")
WIDE = Disk(1e18, 1e12, 1e12)


@pytest.mark.parametrize(
    ("period", "found", "again"),
    [
        (1, 12800, 0),
        (1000, 12800, 800),
        (None, 12800, 5504),
        (4096, 8192, 0),
        (4096, 8320, 128),
        (None, 1280, 1280),
    ],
)
def test_what_is_run_again(period, found, again):
    """Flash rebuilds its windows from 128 · 43 = 5,504 tokens at most; blocks of 128 tokens are kept."""
    policy = prefix_policy(FLASH, period)
    assert policy.block_tokens == 128
    assert policy.found(found + 127, 10**6) == found
    assert policy.run_again(found) == again


def test_the_last_token_of_a_prompt_is_always_computed():
    policy = prefix_policy(FLASH, 1)
    assert policy.found(1280, 1280) == 1152
    assert policy.found(1280, 1281) == 1280
    assert policy.found(1280, 1) == 0 and policy.read_bytes(0) == 0


def test_windows_of_every_token_are_eight_times_the_compressed_entries():
    """The report's "about 8", without the indexer's keys; 7.1 with them."""
    policy = prefix_policy(FLASH, 1)
    assert policy.window_bytes / policy.entry_bytes == pytest.approx(7.1, abs=0.1)
    assert prefix_policy(FLASH, None).window_bytes == 0
    # At least once a window: the same as full; every 8th window: an eighth.
    assert prefix_policy(FLASH, 128).window_bytes == pytest.approx(policy.window_bytes)
    assert prefix_policy(FLASH, 1024).window_bytes == pytest.approx(policy.window_bytes / 8)


def test_entries_are_those_of_the_cache():
    policy = prefix_policy(FLASH, None)
    assert 128_000 * policy.entry_bytes == pytest.approx(int(kv_cache_bytes(FLASH, 128_000, state="none")))
    v3 = prefix_policy(load_config("deepseek-v3"), None)
    assert (v3.entry_bytes, v3.run_again(640), v3.window_bytes) == (70_272.0, 0, 0.0)


def test_the_store_throws_out_what_was_not_used_longest():
    policy = prefix_policy(FLASH, 1)
    store = PrefixStore(policy, Disk(policy.stored_bytes(3 * 1280), 1e15, 1e15))
    for key in (1, 2, 3):
        store.keep(0.0, key, 1300)
    assert store.look_up(1.0, [(1, 1300)], 5000).tokens == 1280  # used again
    store.keep(2.0, 4, 1300)
    kept = [key for key in (1, 2, 3, 4) if store.look_up(3.0, [(key, 1300)], 5000).tokens]
    assert kept == [1, 3, 4] and store.prefixes == 3
    assert store.used_bytes == pytest.approx(policy.stored_bytes(3 * 1280))
    assert store.written_bytes == pytest.approx(policy.stored_bytes(4 * 1280))


def test_a_prefix_can_be_read_once_it_is_written_and_reads_queue():
    policy = prefix_policy(FLASH, 1)
    size = policy.stored_bytes(12800)
    store = PrefixStore(policy, Disk(1e18, policy.read_bytes(12800) / 2, size / 5))
    store.keep(1.0, 7, 12800)
    assert store.look_up(5.9, [(7, 12800)], 20000).tokens == 0
    assert store.look_up(6.1, [(7, 12800)], 20000).ready_s == pytest.approx(8.1)
    assert store.look_up(6.1, [(7, 12800)], 20000).ready_s == pytest.approx(10.1)
    store.keep(20.0, 7, 13000)  # a block more: little to write
    assert store.written_bytes == pytest.approx(policy.stored_bytes(12928))


def talk():
    traffic = Traffic(
        3.0,
        Lengths(2000, "lognormal"),
        Lengths(300),
        turns=5.0,
        pause_s=20.0,
        shared_tokens=1500,
        longest_prompt=60_000,
    )
    return draw(traffic, 600, 8)


PACE = LinearPace(0.01, 1e-4, pass_token_s=2e-5)


def test_policies_trade_bytes_for_tokens():
    requests, outcomes = talk(), {}
    for period in (1, 2048, None):
        deployment = Deployment(Pool(PACE), prefixes=(prefix_policy(FLASH, period), WIDE))
        outcomes[period] = simulate(requests, deployment)
    none = simulate(requests, Deployment(Pool(PACE)))
    full, some, zero = (outcomes[p] for p in (1, 2048, None))
    assert none.computed_tokens > zero.computed_tokens > some.computed_tokens > full.computed_tokens
    assert full.written_bytes > some.written_bytes > zero.written_bytes > none.written_bytes == 0
    assert none.ttft_s.mean() > full.ttft_s.mean()
    for outcome in (full, some, zero):
        read = outcome.found_tokens - outcome.run_again_tokens
        assert outcome.computed_tokens == (requests.prompt_tokens - read).sum()
        assert (outcome.found_tokens <= np.maximum(requests.repeated_tokens, requests.shared_tokens)).all()
    assert outcomes[None].run_again_tokens.max() == 5504


def test_a_slow_disk_is_no_gain():
    requests = talk()
    slow = Disk(1e18, 2e6, 1e12)
    deployment = Deployment(Pool(PACE), prefixes=(prefix_policy(FLASH, None), slow))
    assert (
        simulate(requests, deployment).ttft_s.mean()
        > simulate(requests, Deployment(Pool(PACE))).ttft_s.mean()
    )


def test_memory_beside_the_weights_becomes_slots_and_blocks():
    cluster, mapping, stack = (
        load_cluster("ascend-950dt", chips=16),
        Mapping(dp=16, ep=16),
        engine("cann-950"),
    )
    wide = paging_of(FLASH, cluster, mapping, stack, mean_tokens=8192, longest_tokens=10**5)
    few = paging_of(FLASH, cluster, mapping, stack, mean_tokens=8192, longest_tokens=10**5, most_requests=64)
    assert wide.block_tokens == 128 and few.slots == 64 and few.blocks > wide.blocks
    # Slots and blocks together are what the cache of that many sequences takes, state included.
    each = float(kv_cache_bytes(FLASH, 8192, state="windows and buffers"))
    room = cluster.chip.device().memory_bytes * stack.memory_share.value * 16
    assert 0.6 * room < wide.slots * each < room
    with pytest.raises(ValueError, match=r"paging_of: .* a request of 900000000 tokens needs"):
        paging_of(FLASH, cluster, mapping, stack, mean_tokens=8192, longest_tokens=9 * 10**8)
    pro, one = load_config("deepseek-v4-pro"), load_cluster("ascend-950dt", chips=1)
    with pytest.raises(ValueError, match="do not fit"):
        paging_of(pro, one, Mapping(), stack, mean_tokens=8192, longest_tokens=10**5)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="period is 0"):
        prefix_policy(FLASH, 0)
    with pytest.raises(ValueError, match="capacity_bytes is 0"):
        Disk(0, 1, 1)
