"""Layouts: what tiles and what does not, what a rank holds, and what it sends."""

import numpy as np
import pytest

import workbench as wb
from workbench.chips import Workload, load_cluster
from workbench.chips.mapping import Mapping, exchanges
from workbench.chips.topology import topology_of

PRO, V3 = wb.load_config("deepseek-v4-pro"), wb.load_config("deepseek-v3")
H800 = topology_of(load_cluster("h800", chips=256))


def names(mapping, config=V3, **load):
    workload = Workload(**({"phase": "decode", "context_tokens": 4096, "batch": 8} | load))
    return {e.name: e for e in exchanges(config, workload, mapping, H800)}


def test_tensor_parallel_adds_up_after_attention_and_after_the_experts():
    found = names(Mapping(attention_tp=8, moe_tp=8))
    assert set(found) == {"attention output", "feed-forward output", "experts' output", "logits"}
    # 8 tokens of 7168 channels in BF16.
    assert found["attention output"].payload_bytes == 8 * 7168 * 2
    assert found["attention output"].count == 61 and found["experts' output"].count == 58
    assert found["feed-forward output"].count == 3


def test_data_parallel_attention_sends_tokens_to_experts_and_back():
    found = names(Mapping(dp=64, ep=64))
    assert set(found) == {"dispatch", "combine"}
    assert found["combine"].payload_bytes == 8 * 8 * 7168 * 2
    assert all(e.is_expert_traffic for e in found.values())


def test_experts_cut_over_data_parallel_groups_gather_tokens():
    found = names(Mapping(dp=8, moe_tp=8))
    assert set(found) == {"gather tokens", "scatter sums"}
    assert found["gather tokens"].payload_bytes == 8 * 8 * 7168 * 2


def test_drafts_add_passes_of_the_block():
    plain = names(Mapping(dp=64, ep=64))
    drafted = names(Mapping(dp=64, ep=64), draft_tokens=3, accepted_length=2.0)
    assert drafted["dispatch"].count == plain["dispatch"].count + 3
    assert drafted["dispatch"].payload_bytes == 4 * plain["dispatch"].payload_bytes


def test_a_pipeline_hands_all_residual_streams_on():
    one = names(Mapping(pp=4, dp=8, ep=8), V3)["to the next stage"]
    four = names(Mapping(pp=4, dp=8, ep=8), PRO)["to the next stage"]
    assert four.payload_bytes == 4 * one.payload_bytes  # hc_mult residual streams


def test_context_parallel_gathers_compressed_entries_only():
    load = {"phase": "prefill", "context_tokens": 65536, "batch": 1}
    v4 = names(Mapping(cp=8, ep=8), PRO, **load)["gather entries"]
    v3 = names(Mapping(cp=8, ep=8), V3, **load)["gather entries"]
    assert v4.payload_bytes < v3.payload_bytes / 5


def test_stages_share_out_all_layers_once():
    mapping = Mapping(pp=16, dp=8, ep=8)
    shards = [mapping.shard(V3, stage) for stage in range(16)]
    assert [s.first_layer for s in shards[1:]] == [s.last_layer for s in shards[:-1]]
    assert shards[0].first_layer == 0 and shards[-1].last_layer == 61
    assert {s.last_layer - s.first_layer for s in shards} == {3, 4}


def test_a_training_pass_sends_everything_twice():
    workload = Workload(phase="train", context_tokens=4096)
    found = exchanges(V3, workload, Mapping(dp=64, ep=64), H800)
    stages = [e.stage for e in found if e.name == "dispatch"]
    assert stages == ["forward", "backward"]


def test_arrays_send_what_single_batches_send():
    mapping = Mapping(dp=64, ep=64)
    batches = np.array([1.0, 7.0, 200.0])
    many = names(mapping, batch=batches)["dispatch"].time.expected
    alone = [float(names(mapping, batch=b)["dispatch"].time.expected) for b in batches]
    np.testing.assert_allclose(many, alone)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mapping(dp=0), "dp is 0"),
        (lambda: Mapping(dp=6, ep=4), "must divide the 6 ranks"),
        (lambda: Mapping(overlap="sometimes"), "'sometimes' is unknown"),  # type: ignore[arg-type]
        (lambda: Mapping(expert_imbalance=0.5), "expert_imbalance is 0.5"),
        (lambda: Mapping(pp=100).shard(V3), "there are 61 layers"),
        (lambda: Mapping(attention_tp=3, moe_tp=3).shard(V3), "must divide num_attention_heads=128"),
        (lambda: Mapping(dp=48, ep=48).shard(V3), "must divide n_routed_experts=256"),
    ],
)
def test_layouts_that_do_not_divide_say_what_would(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_context_parallel_ranks_send_tokens_to_experts_but_share_those_they_decode():
    prefill = names(Mapping(cp=8, ep=8), PRO, phase="prefill", context_tokens=65536)
    alone = names(Mapping(dp=8, ep=8), PRO, phase="prefill", context_tokens=65536 // 8)
    for name in ("dispatch", "combine"):
        # An eighth of one long prompt on each rank, or a short prompt each: as many tokens travel.
        assert prefill[name].payload_bytes == pytest.approx(alone[name].payload_bytes)
    decode = names(Mapping(cp=8, ep=8), PRO, phase="decode", context_tokens=65536, batch=4)
    assert "dispatch" not in decode
    # Every rank holds the same four tokens: what their experts make of them is summed over all eight.
    assert decode["experts' output"].payload_bytes == 4 * PRO.hidden_size * 2
    assert not names(Mapping(), PRO, phase="decode", context_tokens=65536, batch=4)
