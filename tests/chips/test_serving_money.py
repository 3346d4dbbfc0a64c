"""Prices of tokens by hand, DeepSeek's published day from its inputs, and whole deployments."""

import numpy as np
import pytest

from workbench.chips import Mapping, Workload, load_cluster, predict, rent
from workbench.chips.engines import engine
from workbench.chips.serving import (
    Deployment,
    Disk,
    Lengths,
    LinearPace,
    Pool,
    Traffic,
    deploy,
    drafts_of,
    draw,
    owned,
    service_day,
    simulate,
    table_pace,
    token_cost,
    trace,
)
from workbench.config import load_config
from workbench.facts import fact

FLASH, V3 = load_config("deepseek-v4-flash"), load_config("deepseek-v3")


def test_a_million_tokens_cost_what_the_hours_do():
    """1000 answers of 100 tokens at once, 1 s in all, on 8 chips for 3 USD and 2 kW: by hand."""
    pool = Pool(LinearPace(0.01, pass_base_s=0.01), chips=8, chunk_tokens=10**6)
    outcome = simulate(trace(np.zeros(1000), np.full(1000, 900), np.full(1000, 100)), Deployment(pool))
    assert outcome.seconds == pytest.approx(1.0)
    cost = token_cost(outcome, 3.0, 2.0)
    assert cost.usd_per_million_output == pytest.approx(8 / 3600 * 3 / 0.1)
    assert cost.usd_per_million == pytest.approx(8 / 3600 * 3 / 1.0)
    assert cost.kwh_per_million_output == pytest.approx(8 / 3600 * 2 / 0.1)
    assert cost.kwh_per_million == pytest.approx(8 / 3600 * 2 / 1.0)
    with pytest.raises(ValueError, match="neither can be negative"):
        token_cost(outcome, -1, 0)


def test_the_published_margin_follows_from_its_inputs():
    day = service_day(nodes=fact("serving_nodes"))
    assert day.cost_usd == pytest.approx(87_072, abs=1)
    assert day.revenue_usd == pytest.approx(562_027, rel=2e-4)  # volumes are printed in whole billions
    assert 100 * day.margin == pytest.approx(545, abs=0.7)
    # The rates of a node need as many nodes as were rented.
    assert service_day().nodes == pytest.approx(226.75, rel=2e-3)


def test_a_slower_node_or_a_dearer_hour_eats_the_margin():
    assert service_day(output_tokens_per_s_per_node=7400).margin < service_day().margin
    assert service_day(usd_per_chip_h=4.0).cost_usd == pytest.approx(2 * service_day().cost_usd)
    assert service_day(usd_per_million=(0, 0, 0)).margin == -1
    with pytest.raises(ValueError, match="rates of a node are 0 in"):
        service_day(input_tokens_per_s_per_node=0)


def test_a_bought_chip_costs_price_and_energy_over_its_hours():
    """CNY 332,000 at system level, 4 years at 80%, 1.456 kW at 8 cents: by hand."""
    hour = owned("ascend-910c")
    assert hour.value == pytest.approx(332_000 / 7.1 / (4 * 8766 * 0.8) + 1.456 * 0.08, rel=1e-3)
    assert hour.lower < hour.value < hour.upper and hour.kind == "derived"
    assert owned("ascend-910c", 0.0).value == pytest.approx(1.456 * 0.08, rel=1e-3)
    with pytest.raises(ValueError, match="owned: no purchase price of h100"):
        owned("h100_sxm")


def test_the_table_gives_the_simulators_times_at_its_points_and_near_them_between():
    cluster, mapping, stack = load_cluster("h800", chips=16), Mapping(dp=16, ep=16), engine("deepseek")
    pace = table_pace(V3, cluster, mapping, stack, draft_tokens=1, accepted_length=1.8)
    for batch, context, near in ((32, 4096, 0.03), (77, 5000, 0.03), (1, 128, 1e-6), (1024, 2**20, 1e-6)):
        workload = Workload(
            phase="decode", batch=batch, context_tokens=context, draft_tokens=1, accepted_length=1.8
        )
        step = predict(V3, cluster, workload, mapping, with_engine=stack, check_memory=False).step_s.expected
        assert pace.step_s(batch * 16, context) == pytest.approx(step, rel=near)
    for new, context in ((4096, 4096), (1000, 9000)):
        workload = Workload(phase="prefill", context_tokens=context, new_tokens=new)
        step = predict(V3, cluster, workload, mapping, with_engine=stack, check_memory=False).step_s.expected
        assert pace.pass_s(new * 16, new, context - new / 2) == pytest.approx(step, rel=0.06)
    # One prompt keeps one group busy: as long as a pass of all, less what the others bring to the experts.
    assert pace.pass_s(4096, 4096, 2048) < pace.pass_s(16 * 4096, 4096, 2048)
    assert pace.step_s(1, 4096) < pace.step_s(16, 4096)
    with pytest.raises(ValueError, match="end 'middle' is unknown"):
        table_pace(V3, cluster, mapping, stack, end="middle")
    with pytest.raises(ValueError, match="the mapping has 32 ranks"):
        table_pace(V3, cluster, Mapping(dp=32, ep=32), stack)


def test_a_deployment_on_chips_serves_and_costs():
    cluster, stack = load_cluster("ascend-950dt", chips=48), engine("cann-950")
    mapping = Mapping(dp=16, ep=16)
    requests = draw(Traffic(8.0, Lengths(3000, "lognormal"), Lengths(300, "uniform"), turns=2), 300, 1)
    drafts = drafts_of(1.7, 1)
    apart = deploy(FLASH, cluster, mapping, stack, requests, prefill=(mapping, 2), drafts=drafts)
    shared = deploy(
        FLASH, cluster, mapping, stack, requests, instances=3, drafts=drafts, prefix_period=None,
        disk=Disk(1e13, 2e10, 2e10),
    )  # fmt: skip
    outcome, other = simulate(requests, apart), simulate(requests, shared)
    assert outcome.chips == other.chips == 48
    assert outcome.quantiles((0.9,))[0]["tpot_s"] < other.quantiles((0.9,))[0]["tpot_s"]
    assert other.written_bytes > 0
    slow = simulate(
        requests, deploy(FLASH, cluster, mapping, stack, requests, prefill=(mapping, 2), end="upper")
    )
    assert slow.ttft_s.mean() > outcome.ttft_s.mean()
    assert 0 < token_cost(outcome, owned("ascend-910c").value, 1.81).usd_per_million < 100
    with pytest.raises(ValueError, match="the instances take 64 devices; ascend-950dt has 48"):
        deploy(FLASH, cluster, mapping, stack, requests, instances=4)


def test_rents_are_dated_and_sourced():
    assert "2026" in rent("h200").source
