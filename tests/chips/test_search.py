"""The search: nothing better is missed, nothing that does not fit is offered."""

import itertools

import pytest

import workbench as wb
from workbench.chips import Workload, load_cluster
from workbench.chips.engines import engine
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import memory_rows, total_bytes
from workbench.chips.predict import predict
from workbench.chips.search import Point, best_split, explore, mappings, pareto

FLASH = wb.load_config("deepseek-v4-flash")
CLUSTER = load_cluster("b200", chips=8)
LOAD = Workload(phase="decode", context_tokens=8192)
POINTS = explore(FLASH, CLUSTER, LOAD)


def test_no_point_of_the_front_is_beaten_and_none_is_missing():
    front = pareto(POINTS)

    def is_beaten(p):
        return any(
            q.interval_s <= p.interval_s and q.tokens_per_s_per_chip >= p.tokens_per_s_per_chip
            and (q.interval_s, q.tokens_per_s_per_chip) != (p.interval_s, p.tokens_per_s_per_chip)
            for q in POINTS
        )  # fmt: skip

    assert not any(is_beaten(p) for p in front)
    best = {(p.interval_s, p.tokens_per_s_per_chip) for p in POINTS if not is_beaten(p)}
    assert {(p.interval_s, p.tokens_per_s_per_chip) for p in front} == best


def test_every_point_fits_and_is_what_predict_says():
    room = CLUSTER.chip.need("memory_bytes") * engine("graph").memory_share.value
    for point in POINTS[:: len(POINTS) // 7]:
        load = LOAD.replace(batch=float(point.batch))
        assert point.used_bytes <= room
        reserve = engine("graph").reserve_bytes.value
        rows = memory_rows(FLASH, load, point.mapping, engine_bytes=reserve)
        assert point.used_bytes == pytest.approx(float(total_bytes(rows)))
        found = predict(FLASH, CLUSTER, load, point.mapping)
        assert point.interval_s == pytest.approx(float(found.tpot_s))
        assert point.tokens_per_s_per_chip == pytest.approx(float(found.tokens_per_s_per_chip))


def test_layouts_divide_the_model_and_fit_the_cluster():
    found = list(mappings(FLASH, 8))
    assert len(found) == len(set(found)) > 8
    for mapping in found:
        assert mapping.ranks <= 8
        mapping.shard(FLASH)
    assert Mapping(attention_tp=8, moe_tp=8) in found
    assert all(m.ep == 1 for m in mappings(wb.load_config("llama-3.1-405b"), 8))


def test_a_limit_is_kept_or_refused_with_the_best_there_is():
    limit = sorted(p.interval_s for p in POINTS)[len(POINTS) // 2]
    assert all(p.interval_s <= limit for p in pareto(POINTS, limit))
    with pytest.raises(ValueError, match="shortest interval"):
        pareto(POINTS, 1e-9)


def test_pools_are_shared_out_so_that_neither_waits():
    mapping = Mapping(dp=8, ep=8)
    prefill = [Point(mapping, 1, 0.1, 1000.0, 0.0)]
    decode = [Point(mapping, b, 0.01 * b, 50.0 * b, 0.0) for b in (1, 2, 3)]
    split = best_split(prefill, decode, 2000, 100, limit_s=0.025)
    assert split.decode.batch == 2
    # 0.5 prompts a second and prefill chip, 1 answer a second and decode chip: two thirds prefill.
    assert split.prefill_share == pytest.approx(2 / 3)
    assert split.output_tokens_per_s_per_chip == pytest.approx(100 / 3)
    # No other share of the chips does more.
    rates = [min(x * 0.5, (1 - x) * 1.0) for x in (i / 1000 for i in range(1001))]
    assert split.output_tokens_per_s_per_chip / 100 == pytest.approx(max(rates), rel=2e-3)


def test_a_model_too_large_says_by_how_much():
    with pytest.raises(ValueError, match=r"GiB over.*largest part is experts"):
        explore(wb.load_config("deepseek-v4-pro"), load_cluster("h100", chips=8), LOAD)


def test_tensor_parallel_reads_fastest_and_experts_apart_serve_most():
    front = pareto(POINTS)
    assert front[0].mapping.attention_tp > front[-1].mapping.attention_tp
    assert all(a.interval_s < b.interval_s for a, b in itertools.pairwise(front))
