"""Rows of the kernel table as operations, and the routing that its collector's logits lead to."""

import itertools
import math

import numpy as np
import pytest

from workbench.chips.calibration import read_rows
from workbench.chips.kernel_rows import Rows, excluded, operations_of, routed

ROW = {
    "gpu": "h100_sxm", "framework": "", "op": "gemm", "model_or_shape": "96x160", "dtype": "bfloat16",
    "tp": "1", "ep_or_world": "1", "batch_or_tokens": "7", "seq_or_bytes": "", "n": "96", "k": "160",
    "distribution": "", "latency_us": "3", "kernel": "",
}  # fmt: skip


def choose(marked, experts, topk, groups, allowed):
    """One token's experts, read off the router's rule with loops."""
    width = experts // groups
    score = [1.0 if e in marked else 0.0 for e in range(experts)]
    by_group = [sum(sorted(score[g * width : (g + 1) * width])[-2:]) for g in range(groups)]
    kept = sorted(range(groups), key=lambda g: (-by_group[g], g))[:allowed]
    candidates = [e for e in range(experts) if e // width in kept]
    return sorted(candidates, key=lambda e: (-score[e], e))[:topk]


@pytest.mark.parametrize("tokens", [3, 40, 64])
@pytest.mark.parametrize(
    ("experts", "topk", "groups", "allowed"), [(64, 8, 8, 4), (24, 6, 1, 1), (30, 4, 3, 2)]
)
@pytest.mark.parametrize("ranks", [1, 4, 8])
def test_balanced_rows_follow_the_router_token_by_token(tokens, experts, topk, groups, allowed, ranks):
    stride = math.ceil(experts / topk)
    step = 1 if tokens >= stride else stride / tokens
    counts = [0] * experts
    for token in range(tokens):
        marked = {int((token * step + slot * stride) % experts) for slot in range(topk)}
        for expert in choose(marked, experts, topk, groups, allowed):
            counts[expert] += 1
    local = counts[: experts // ranks]
    rows, active = routed(tokens, experts, topk, ranks, "balanced", (groups, allowed))
    assert rows == max(sum(local), 1) and active == max(sum(c > 0 for c in local), 1)


def test_v3_s_balanced_rows_are_not_balanced_over_ranks():
    # One expert marked in each of eight groups, four groups allowed: four marked ones, and the four lowest.
    rows, active = routed(1024, 256, 8, 8, "balanced", (8, 4))
    assert rows == 1024 * 5 and active == 32
    assert routed(1024, 256, 8, 1, "balanced", (8, 4)) == (1024 * 8, 128)
    assert routed(1024, 256, 8, 8, "balanced")[0] == 1024


@pytest.mark.parametrize(("tokens", "ranks"), [(8, 8), (1024, 1), (1024, 8), (4096, 32)])
def test_power_law_rows_keep_every_choice_and_load_the_first_rank_most(tokens, ranks):
    rows, active = routed(tokens, 384, 6, ranks, "power_law_1.2")
    if ranks == 1:
        assert rows == tokens * 6
    else:
        assert tokens * 6 / ranks < rows < tokens * 6
    assert active <= 384 / ranks


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="distribution 'zipf' is unknown"):
        routed(8, 16, 2, 1, "zipf")


def test_a_product_s_row_has_its_flops_and_bytes():
    (one,) = operations_of(ROW)
    assert one.flop == 2 * 7 * 96 * 160
    assert one.moved_bytes == 2 * (7 * 160 + 96 * 160 + 7 * 96)


def test_an_attention_module_s_row_is_that_of_one_layer_without_its_residual():
    row = {**ROW, "op": "csa_decode_module", "model_or_shape": "DeepSeek-V4-Flash", "dtype": "fp8_block",
           "batch_or_tokens": "16", "seq_or_bytes": "8192"}  # fmt: skip
    names = [op.name for op in operations_of(row)]
    assert names[0] == "q_a_proj" and names[-1] == "o_b_proj" and "top-k" in names
    assert all(op.count == 1 for op in operations_of(row))
    assert "top-k" not in [op.name for op in operations_of({**row, "op": "hca_decode_module"})]


def test_mixing_rows_count_both_sites():
    row = {**ROW, "op": "mhc_post (2 sites)", "model_or_shape": "hidden 7168, hc 4", "batch_or_tokens": "64"}
    (one,) = operations_of(row)
    assert one.count == 2
    # In: four streams and the module's output; out: four streams.
    assert one.moved_bytes == 2 * 64 * 7168 * (5 + 4)


def test_rows_of_no_one_chip_and_reference_loops_are_excluded_with_a_reason():
    assert excluded(ROW) is None
    assert "not a kernel of one chip" in excluded({**ROW, "op": "all_reduce"})
    assert "PyTorch" in excluded({**ROW, "op": "mhc_pre (2 sites)", "kernel": "sglang_torch_mhc_pre"})
    assert "reference loop" in excluded({**ROW, "op": "hca_decode_module", "gpu": "rtx_pro_6000_server"})
    with pytest.raises(ValueError, match="'all_reduce' is not a kernel of one chip"):
        operations_of({**ROW, "op": "all_reduce"})


def test_neighbouring_rows_do_not_fuse():
    two = Rows([ROW, ROW]).predict()
    np.testing.assert_array_equal(two[:, 0], two[:, 1])


def test_every_row_of_the_table_is_understood():
    rows = read_rows()
    assert len(rows) > 1200
    for _, same in itertools.groupby(rows, key=lambda r: (r["op"], r["model_or_shape"], r["dtype"])):
        assert operations_of(next(same))
