"""Memory: rows add up to the checkpoint, every tensor is named, and what does not fit says by how much."""

import re

import numpy as np
import pytest

import workbench as wb
from workbench.accounting import checkpoint, kv_cache_bytes
from workbench.chips import Workload
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import check_fit, largest_batch, memory_rows, total_bytes, weight_rows
from workbench.chips.precision import precision

PRO, FLASH = wb.load_config("deepseek-v4-pro"), wb.load_config("deepseek-v4-flash")
V3, LLAMA = wb.load_config("deepseek-v3"), wb.load_config("llama-3.1-405b")


@pytest.mark.parametrize("config", [PRO, FLASH, V3, LLAMA])
def test_one_device_holds_the_whole_checkpoint(config):
    held = total_bytes(weight_rows(config, Mapping()))
    assert held == pytest.approx(checkpoint(config).stored_bytes, rel=1e-3)


@pytest.mark.parametrize(
    "mapping", [Mapping(dp=16, ep=16), Mapping(attention_tp=8, moe_tp=8), Mapping(pp=4, dp=4, ep=4)]
)
def test_all_ranks_together_hold_every_expert_once(mapping):
    whole = {row.name: row.size_bytes for row in weight_rows(PRO, Mapping())}
    mine = {row.name: row.size_bytes for row in weight_rows(PRO, mapping)}
    cut = mapping.ep * mapping.moe_tp
    if mapping.pp == 1:
        assert mine["experts"] * cut == pytest.approx(whole["experts"])
    else:
        # Stages differ by a layer and the MTP block: the fullest has a little more than its share.
        assert (
            whole["experts"] / cut / mapping.pp < mine["experts"] < 1.1 * whole["experts"] / cut / mapping.pp
        )


def test_spare_experts_take_their_share():
    plain = weight_rows(V3, Mapping(dp=32, ep=32))[0]
    spare = weight_rows(V3, Mapping(dp=32, ep=32, spare_experts=1))[0]
    assert (plain.name, spare.name) == ("experts", "experts")
    assert spare.size_bytes / plain.size_bytes == pytest.approx(9 / 8)


def test_the_cache_is_accounting_s_and_tensor_parallel_ranks_each_hold_it():
    load = Workload(phase="decode", context_tokens=8192, batch=5)
    for tp in (1, 8):
        rows = {r.name: r for r in memory_rows(V3, load, Mapping(attention_tp=tp, moe_tp=tp))}
        assert rows["key-value cache"].size_bytes == 5 * kv_cache_bytes(V3, 8192)
    grouped = {r.name: r for r in memory_rows(LLAMA, load, Mapping(attention_tp=8))}
    assert grouped["key-value cache"].size_bytes == 5 * kv_cache_bytes(LLAMA, 8192) / 8


def test_formats_change_the_experts_bytes():
    fp4 = weight_rows(PRO, Mapping(dp=16, ep=16))[0]
    int8 = weight_rows(PRO, Mapping(dp=16, ep=16), precision("int8"))[0]
    assert int8.size_bytes / fp4.size_bytes == pytest.approx(1 / (0.5 + 1 / 32), rel=1e-6)


def test_what_does_not_fit_names_the_tensor_and_the_excess():
    rows = memory_rows(PRO, Workload(phase="decode", context_tokens=8192), Mapping(dp=16, ep=16))
    total = float(total_bytes(rows))
    check_fit(rows, total)
    with pytest.raises(ValueError, match="experts") as caught:
        check_fit(rows, total - 3 * 2**30, "one chip")
    assert re.search(r"3\.0 GiB over", str(caught.value)) and "one chip" in str(caught.value)


def test_the_largest_batch_fits_and_one_more_does_not():
    load, mapping = Workload(phase="decode", context_tokens=65536), Mapping(dp=32, ep=32)
    room = 100 * 2**30
    most = largest_batch(V3, load, mapping, room)
    assert most > 0
    for batch, fits in ((most, True), (most + 1, False)):
        used = float(total_bytes(memory_rows(V3, load.replace(batch=batch), mapping)))
        assert (used <= room) is fits
    assert largest_batch(V3, load, mapping, 1 * 2**30) == 0


def test_training_keeps_gradients_and_shares_out_the_optimiser():
    load = Workload(phase="train", context_tokens=4096, recompute="full")
    rows = {r.name: r.size_bytes for r in memory_rows(V3, load, Mapping(dp=64, ep=64))}
    assert rows["master weights"] == pytest.approx(2 * rows["gradients"] / 64)
    less = load.replace(recompute="none")
    kept = {r.name: r.size_bytes for r in memory_rows(V3, less, Mapping(dp=64, ep=64))}
    assert kept["activations"] > 4 * rows["activations"]


def test_sizes_broadcast():
    many = Workload(phase="decode", context_tokens=np.array([1024, 65536]), batch=3)
    rows = memory_rows(PRO, many, Mapping(dp=16, ep=16))
    assert np.shape(total_bytes(rows)) == (2,)
