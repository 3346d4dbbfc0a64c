"""What a workload says about its passes, and what it refuses."""

import numpy as np
import pytest

from workbench.chips import Shard, Workload


def test_a_step_yields_what_its_drafts_earn():
    assert Workload(phase="decode", context_tokens=9).tokens_per_step == 1
    drafts = Workload(phase="decode", context_tokens=9, draft_tokens=3, acceptance=0.5)
    assert drafts.tokens_per_step == 1 + 0.5 + 0.25 + 0.125
    measured = Workload(phase="decode", context_tokens=9, draft_tokens=3, accepted_length=2.44)
    assert measured.tokens_per_step == 2.44
    assert (measured.tokens_computed, measured.tokens_before) == (4, 8)


def test_chunks_are_full_but_for_the_last():
    work = Workload(phase="prefill", context_tokens=1000, prefix_hit=0.1, chunk_tokens=400, batch=3)
    passes = work.chunks()
    assert passes.tokens_computed.tolist() == [400, 400, 100]
    assert passes.tokens_before.tolist() == [100, 500, 900]
    assert work.replace(chunk_tokens=None).chunks().tokens_computed == 900
    assert Workload(phase="decode", context_tokens=9, chunk_tokens=4).chunks().tokens_computed == 1


def test_a_batch_sweep_gets_its_own_axis_beside_the_chunks():
    work = Workload(phase="prefill", context_tokens=1000, chunk_tokens=400, batch=np.array([1, 2]))
    assert (work.chunks().batch * work.chunks().tokens_computed).tolist() == [
        [400, 400, 200],
        [800, 800, 400],
    ]


def test_prompts_of_several_lengths_are_not_cut_together():
    work = Workload(phase="prefill", context_tokens=np.array([100, 900]), chunk_tokens=200)
    with pytest.raises(ValueError, match=r"context_tokens has shape \(2,\); .* cut one length at a time"):
        work.chunks()


def test_ranks_that_hold_one_batch_bring_it_to_the_experts_once():
    assert Shard(ep=8).batches_at_experts == 8
    assert Shard(attention_tp=8, ep=8).batches_at_experts == 1
    assert Shard(attention_tp=4, ep=4, moe_tp=2).batches_at_experts == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(phase="decoding"), r"phase 'decoding' is unknown; choose one of \('prefill'"),
        (dict(batch=0), "batch is 0; it must be positive"),
        (dict(context_tokens=np.array([4, 0])), r"context_tokens is \[4 0\]; it must be positive"),
        (dict(phase="prefill", prefix_hit=1.0), r"prefix_hit is 1.0; it is a share in \[0, 1\)"),
        (dict(phase="prefill", new_tokens=65), r"new_tokens is 65; it must lie in \[1, context_tokens=64\]"),
        (dict(draft_tokens=2), "draft_tokens is 2 and no acceptance is given"),
        (dict(draft_tokens=1, accepted_length=2.5), "accepted_length is 2.5; a step that computes 2 tokens"),
        (dict(recompute="some"), "recompute 'some' is unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Workload(**{"phase": "decode", "context_tokens": 64, **changes})


def test_a_degree_counts_ranks():
    with pytest.raises(ValueError, match="ep is 0; it counts ranks"):
        Shard(ep=0)
