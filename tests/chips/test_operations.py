"""Operations add up to the accounting; what ranks, chunks and stages run adds up to the whole."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.accounting import FORMATS, flop_components, flop_per_prefill, flop_per_token, kv_cache_bytes
from workbench.accounting.routing import weight_bytes_read
from workbench.chips import Shard, Workload, operations
from workbench.chips.operations.operation import BYTES
from workbench.config import CSA, HCA, SWA

PRESETS = [name for name in wb.presets() if name != "tiny"]


def total(ops, field="flop", **where):
    return sum(
        getattr(op, field) * op.count
        for op in ops
        if all(getattr(op, name) == value for name, value in where.items())
    )


def named(ops, name, **where):
    return next(
        op for op in ops if op.name == name and all(getattr(op, k) == value for k, value in where.items())
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_decoding_takes_the_flop_of_the_accounting(preset):
    config = wb.load_config(preset)
    contexts = np.array([1, 127, 4096, 100_001])
    ops = operations(config, Workload(phase="decode", context_tokens=contexts, batch=3))
    np.testing.assert_allclose(total(ops), 3 * flop_per_token(config, contexts), rtol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_prompt_takes_the_flop_of_the_accounting(preset):
    config = wb.load_config(preset)
    lengths = np.array([1, 130, 8192])
    ops = operations(config, Workload(phase="prefill", context_tokens=lengths, logits="all"))
    np.testing.assert_allclose(total(ops), flop_per_prefill(config, lengths), rtol=1e-12)


@pytest.mark.parametrize("preset", ["deepseek-v4-pro", "deepseek-v3.2"])
def test_scores_and_core_are_told_apart_as_in_the_accounting(preset):
    config = wb.load_config(preset)
    ops = operations(config, Workload(phase="decode", context_tokens=70_000))
    parts = flop_components(config, 70_000)
    index = parts["index_fp4"] + parts["index_fp8"]
    assert total(ops, kind="index_scores") == pytest.approx(index, rel=1e-12)
    assert total(ops, kind="attention") == pytest.approx(parts["core"], rel=1e-12)


@pytest.mark.parametrize("preset", ["deepseek-v4-pro", "deepseek-v3", "qwen3-235b-a22b"])
@pytest.mark.parametrize("batch", [1, 17, 900])
def test_a_step_reads_the_weights_that_the_accounting_says(preset, batch):
    config = wb.load_config(preset)
    ops = operations(config, Workload(phase="decode", context_tokens=300, batch=batch))
    read = weight_bytes_read(config, batch)
    experts = total(ops, "weight_bytes", kind="grouped_gemm")
    assert experts == pytest.approx(read["routed experts"], rel=1e-12)
    lookups = batch * 2 * config.hidden_size  # the accounting counts the rows of the embedding as weights
    assert total(ops, "weight_bytes") - experts == pytest.approx(read["the rest"] - lookups, rel=1e-12)


@pytest.mark.parametrize("preset", ["deepseek-v4-flash", "deepseek-v3", "deepseek-v3.2", "llama-3.1-405b"])
def test_a_prompt_writes_the_cache_that_the_accounting_holds(preset):
    config = wb.load_config(preset)
    tokens = 128 * 50
    ops = operations(config, Workload(phase="prefill", context_tokens=tokens))
    written = total(ops, "cache_write_bytes")
    kept = kv_cache_bytes(config, tokens)
    if config.sliding_window:  # every token passes through the window, which holds the last 128
        passed = config.num_hidden_layers * (tokens - config.sliding_window)
        kept = kept + passed * FORMATS["fp8_v4"].entry.entry_bytes(config.head_dim, config.qk_rope_head_dim)
    assert written == pytest.approx(float(kept), rel=1e-12)


@pytest.mark.parametrize("preset", ["deepseek-v3", "qwen2.5-72b"])
def test_a_decoding_step_reads_the_whole_cache_where_attention_is_dense(preset):
    config = wb.load_config(preset)
    ops = operations(config, Workload(phase="decode", context_tokens=5000, batch=3))
    assert total(ops, "cache_read_bytes") == 3 * kv_cache_bytes(config, 5000)


def test_v4_reads_of_its_cache_what_window_and_choice_need():
    config = wb.load_config("deepseek-v4-pro")
    n = 2**20
    ops = operations(config, Workload(phase="decode", context_tokens=n))
    entry = FORMATS["fp8_v4"].entry.entry_bytes(512, 64)
    csa, hca = named(ops, "core", layer_type=CSA), named(ops, "core", layer_type=HCA)
    assert csa.cache_read_bytes == (128 + 1024) * entry == csa.gather_bytes
    assert hca.cache_read_bytes == (128 + n // 128) * entry
    assert csa.batch == 1 and csa.m == 128 and csa.n == 128 + 1024 and (csa.k, csa.k_value) == (512, 512)
    # 64 bytes a key and four scales: the indexer reads a quarter million keys.
    assert named(ops, "index scores").cache_read_bytes == n // 4 * 68
    assert not [op for op in ops if op.layer_type == SWA]


@pytest.mark.parametrize("preset", [*PRESETS, "tiny"])
@pytest.mark.parametrize("phase", ["decode", "train"])
def test_shapes_say_the_flop_and_the_bytes(preset, phase):
    for op in operations(wb.load_config(preset), Workload(phase=phase, context_tokens=3000, batch=2)):
        if op.is_product and not (op.kind == "attention" and op.stage == "backward"):
            assert op.flop == pytest.approx(2 * op.batch * op.m * op.n * (op.k + op.k_value)), op.name
        if op.kind in ("gemm", "grouped_gemm") and op.weight_bytes:
            plain = op.batch * op.n * op.k * BYTES[op.weight]
            # One byte of scale for 128 × 128 weights in FP8 (whole blocks), for 32 in FP4.
            scales = {"fp8": 0.02, "fp4": 2 / 32}.get(op.weight, 0)
            assert plain * (1 - 1e-12) <= op.weight_bytes <= plain * (1 + scales + 1e-12), op.name


def test_the_halves_of_an_absorbed_matrix_have_their_own_sizes():
    config = wb.load_config("deepseek-v3").replace(v_head_dim=64)
    ops = operations(config, Workload(phase="decode", context_tokens=50))
    up, down = named(ops, "q absorb"), named(ops, "v absorb")
    assert (up.batch, up.n, up.k, down.n, down.k) == (128, 512, 128, 64, 512)
    assert up.weight_bytes == pytest.approx(2 * down.weight_bytes)


def test_one_pass_may_draft_several_tokens():
    config = wb.load_config("deepseek-v4-pro")
    work = Workload(
        phase="decode", context_tokens=900, batch=2, new_tokens=6, draft_tokens=1, accepted_length=3.6
    )
    ops = operations(config, work)
    assert named(ops, "q_a_proj").m == 12
    assert [(op.m, op.count) for op in ops if op.part == "mtp" and op.name == "q_a_proj"] == [(12, 1)]


def test_formats_are_those_of_the_release():
    config = wb.load_config("deepseek-v4-flash")
    ops = operations(config, Workload(phase="decode", context_tokens=4096, batch=8))
    formats = {op.name: (op.weight, op.activation) for op in ops if op.is_product}
    assert formats["experts gate_up"] == ("fp4", "fp8")
    assert formats["q_b_proj"] == ("fp8", "fp8")
    assert formats["compressor kv and gate"] == ("bf16", "bf16")
    assert formats["router"] == ("bf16", "bf16")
    assert formats["attn_hc weights"] == ("fp32", "bf16")
    assert formats["index scores"] == ("fp4", "fp4")
    v3 = operations(wb.load_config("deepseek-v3"), Workload(phase="decode", context_tokens=4096))
    assert named(v3, "experts down").weight == "fp8"


def test_drafts_multiply_the_tokens_and_run_the_block():
    config = wb.load_config("deepseek-v4-flash")
    plain = operations(config, Workload(phase="decode", context_tokens=900, batch=6))
    work = Workload(phase="decode", context_tokens=900, batch=2, draft_tokens=2, acceptance=0.5)
    drafted = operations(config, work)
    assert named(drafted, "q_a_proj").m == named(plain, "q_a_proj").m == 6
    # One pass over all checked tokens, then one pass of a token a sequence.
    blocks = [op for op in drafted if op.part == "mtp" and op.name == "q_a_proj"]
    assert [(op.m, op.count) for op in blocks] == [(6, 1), (2, 1)]
    heads = [op for op in drafted if op.part == "mtp" and op.name == "lm_head"]
    assert [op.m for op in heads] == [2, 2]
    assert named(drafted, "h_proj").m == 4 * named(drafted, "e_proj").m
    assert not [op for op in plain if op.part == "mtp"]


@pytest.mark.parametrize("preset", ["deepseek-v4-flash", "deepseek-v3.2", "deepseek-v3", "qwen3-235b-a22b"])
def test_chunks_of_a_prompt_add_up_to_the_prompt(preset):
    config = wb.load_config(preset)
    whole = operations(config, Workload(phase="prefill", context_tokens=10_000, batch=2, logits="all"))
    work = Workload(phase="prefill", context_tokens=10_000, batch=2, chunk_tokens=3000, logits="all")
    cut = operations(config, work)
    assert named(cut, "o_proj" if preset != "deepseek-v4-flash" else "o_b_proj").m.tolist() == [
        6000, 6000, 6000, 2000,
    ]  # fmt: skip
    for name in dict.fromkeys(op.name for op in whole):
        pieces = np.sum(total([op for op in cut if op.name == name]))
        expected = total([op for op in whole if op.name == name])
        if name == "kv_b_proj":  # keys and values of the earlier chunks are expanded again
            expected *= (3000 + 6000 + 9000 + 10_000) / 10_000
        assert pieces == pytest.approx(expected, rel=1e-12), name


def test_a_prefix_hit_leaves_the_rest_of_the_prompt():
    config = wb.load_config("deepseek-v4-flash")
    rest = Workload(phase="prefill", context_tokens=8192, prefix_hit=0.75, logits="all")
    assert (rest.tokens_computed, rest.tokens_before) == (2048, 6144)
    expected = flop_per_prefill(config, 8192) - flop_per_prefill(config, 6144)
    assert total(operations(config, rest)) == pytest.approx(float(expected), rel=1e-12)


def test_a_prefill_needs_the_head_at_the_last_position_only():
    config = wb.load_config("deepseek-v3")
    assert named(operations(config, Workload(phase="prefill", context_tokens=512, batch=3)), "lm_head").m == 3


@settings(max_examples=25, deadline=None)
@given(ep=st.sampled_from([1, 2, 8, 64]), tp=st.sampled_from([1, 2, 4]), batch=st.integers(1, 300))
def test_ranks_that_share_experts_do_together_what_one_would(ep, tp, batch):
    config = wb.load_config("deepseek-v4-flash")
    alone = operations(config, Workload(phase="decode", context_tokens=700, batch=batch * ep))
    shard = Shard(ep=ep, moe_tp=tp, attention_tp=tp)
    rank = operations(config, Workload(phase="decode", context_tokens=700, batch=batch), shard)
    for field in ("flop", "weight_bytes"):
        one, all_ranks = (total(ops, field, kind="grouped_gemm") for ops in (alone, rank))
        assert ep * tp * all_ranks == pytest.approx(one, rel=1e-9)
    assert named(rank, "experts down").k == config.moe_intermediate_size / tp


@pytest.mark.parametrize("preset", ["deepseek-v4-pro", "deepseek-v3", "qwen3-235b-a22b"])
def test_ranks_that_share_heads_hold_equal_parts_of_what_is_cut_and_copies_of_the_rest(preset):
    config = wb.load_config(preset)
    work = Workload(phase="decode", context_tokens=700, batch=5)
    whole, part = operations(config, work), operations(config, work, Shard(attention_tp=4, vocab_tp=4))
    copied = {
        "q_a_proj", "kv_proj", "kv_a_proj_with_mqa", "router", "index scores", "attn_hc weights",
        "ffn_hc weights", "hc_head weights", "compressor kv and gate", "indexer q_b_proj",
        "indexer weights_proj", "indexer compressor kv and gate", "experts gate_up", "experts down",
    }  # fmt: skip
    for one, cut in zip(whole, part, strict=True):
        share = 1 if one.name in copied else 4
        assert share * cut.flop == pytest.approx(one.flop), one.name
        if one.is_product and one.kind != "attention":
            assert share * cut.weight_bytes == pytest.approx(one.weight_bytes), one.name


def test_more_ranks_than_key_value_heads_keep_copies_of_them():
    config = wb.load_config("qwen3-235b-a22b")  # 64 query heads, 4 key-value heads
    work = Workload(phase="decode", context_tokens=700, batch=5)
    four, sixteen = (named(operations(config, work, Shard(attention_tp=tp)), "core") for tp in (4, 16))
    assert (four.batch, four.m, sixteen.batch, sixteen.m) == (5, 16, 5, 4)
    assert four.cache_read_bytes == sixteen.cache_read_bytes


@pytest.mark.parametrize("preset", ["deepseek-v4-flash", "deepseek-v3"])
def test_pipeline_stages_add_up_to_the_network(preset):
    config = wb.load_config(preset)
    work = Workload(phase="prefill", context_tokens=2000)
    cuts = [0, 5, 20, config.num_hidden_layers]
    stages = [operations(config, work, Shard(first_layer=a, last_layer=b)) for a, b in pairwise(cuts)]
    for field in ("flop", "weight_bytes", "cache_write_bytes", "read_bytes"):
        parts = sum(total(stage, field) for stage in stages)
        assert parts == pytest.approx(total(operations(config, work), field), rel=1e-12)


def test_context_ranks_share_the_queries_of_a_prompt_and_the_cache_of_a_step():
    config = wb.load_config("deepseek-v4-pro")
    prompt = Workload(phase="prefill", context_tokens=65536, logits="all")
    assert 4 * total(operations(config, prompt, Shard(cp=4))) == pytest.approx(
        total(operations(config, prompt)), rel=1e-12
    )
    step = Workload(phase="decode", context_tokens=65536)
    one, four = operations(config, step), operations(config, step, Shard(cp=4))
    assert 4 * named(four, "index scores").flop == pytest.approx(named(one, "index scores").flop)
    assert named(four, "q_b_proj").flop == named(one, "q_b_proj").flop


def test_sizes_broadcast():
    config = wb.load_config("deepseek-v4-flash")
    batch, context = np.array([[1.0], [7.0], [64.0]]), np.array([500.0, 9000.0])
    swept = operations(config, Workload(phase="decode", batch=batch, context_tokens=context))
    for i, j in np.ndindex(3, 2):
        single = operations(
            config, Workload(phase="decode", batch=float(batch[i, 0]), context_tokens=float(context[j]))
        )
        for many, one in zip(swept, single, strict=True):
            for field in ("flop", "m", "n", "weight_bytes", "cache_read_bytes", "vector_flop"):
                value = np.broadcast_to(getattr(many, field), (3, 2))[i, j]
                assert value == pytest.approx(getattr(one, field), rel=1e-12), (one.name, field)


def test_a_backward_pass_takes_twice_the_products_of_the_forward_one():
    config = wb.load_config("deepseek-v3")
    ops = operations(config, Workload(phase="train", context_tokens=4096, batch=2))
    maps = {
        stage: sum(
            op.flop * op.count for op in ops if op.stage == stage and op.kind in ("gemm", "grouped_gemm")
        )
        for stage in ("forward", "backward")
    }
    assert maps["backward"] == pytest.approx(2 * maps["forward"], rel=1e-12)
    # Attention computes its scores again: five products where the forward pass has two.
    core = {stage: total(ops, kind="attention", stage=stage) for stage in ("forward", "backward")}
    assert core["backward"] / core["forward"] == pytest.approx((3 * 192 + 2 * 128) / (192 + 128))


def test_recomputation_repeats_what_its_policy_names():
    config = wb.load_config("deepseek-v4-flash")
    work = Workload(phase="train", context_tokens=4096)
    forward = [op for op in operations(config, work) if op.stage == "forward"]
    full = [op for op in operations(config, work.replace(recompute="full")) if op.stage == "recompute"]
    assert [op.replace(stage="forward") for op in full] == forward
    some = [op for op in operations(config, work.replace(recompute="elementwise")) if op.stage == "recompute"]
    assert some and {op.kind for op in some} == {"elementwise"}
    assert not [op for op in operations(config, work) if op.stage == "recompute"]


def test_training_has_its_experts_in_fp8_and_no_gradient_through_the_choice():
    config = wb.load_config("deepseek-v4-flash")
    ops = operations(config, Workload(phase="train", context_tokens=4096))
    assert {op.weight for op in ops if op.kind == "grouped_gemm" and op.stage == "forward"} == {"fp8"}
    assert not [op.name for op in ops if op.stage == "backward" and op.name.startswith("index")]


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (dict(attention_tp=3), r"attention_tp is 3; it must divide num_attention_heads=64; choose one of"),
        (dict(ep=96), r"ep is 96; it must divide n_routed_experts=256"),
        (dict(moe_tp=3), r"moe_tp is 3; it must divide moe_intermediate_size=2048"),
        (dict(attention_tp=16), r"attention_tp is 16; it must divide o_groups=8"),
        (dict(first_layer=9, last_layer=9), r"layers \[9, 9\) are no part of num_hidden_layers=43"),
    ],
)  # fmt: skip
def test_a_shard_that_does_not_fit_is_refused(shard, message):
    config = wb.load_config("deepseek-v4-flash")
    with pytest.raises(ValueError, match=message):
        operations(config, Workload(phase="decode", context_tokens=9), Shard(**shard))


def test_drafts_without_a_block_are_refused():
    config = wb.load_config("kimi-k2")
    with pytest.raises(ValueError, match=r"draft_tokens is 1 and num_nextn_predict_layers is 0; drafting"):
        operations(config, Workload(phase="decode", context_tokens=9, draft_tokens=1, acceptance=0.5))
