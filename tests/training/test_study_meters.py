"""What the meters read is what a loop, autograd or a hand-made network says."""

import math

import pytest
import torch

from workbench.model import Sampling, Transformer, observe
from workbench.model.experts import Router
from workbench.training.loader import Batch
from workbench.training.outliers import OutlierMeter
from workbench.training.studies.compare import difference, is_lower, is_not_worse
from workbench.training.studies.meters import (
    attended,
    blocks,
    drafting,
    expert_loads,
    gate_slopes,
    logit_bound,
)
from workbench.training.studies.switches import plain_queries_and_entries, sigmoid_gates
from workbench.training.studies.variants import VARIANTS, base_config, build


def batch(rows=2, tokens=24):
    ids = torch.randint(0, 64, (rows, tokens), generator=torch.Generator().manual_seed(0))
    return Batch(ids, torch.zeros_like(ids), ids)


def model(name="base"):
    return build(VARIANTS[name], 64, 5)


def test_expert_loads_count_tokens_by_hand():
    network, given = model(), batch()
    seen = observe(network, given.input_ids)
    for layer, row in zip(seen.layers.values(), expert_loads(network, given), strict=True):
        per_row = []
        for ids in (*layer.expert_ids, layer.expert_ids.flatten(0, 1)):
            counts = [sum(e == chosen for pair in ids.tolist() for chosen in pair) for e in range(8)]
            per_row.append(max(counts) / (sum(counts) / 8))
        assert row["within_row"] == pytest.approx(sum(per_row[:2]) / 2)
        assert row["all"] == pytest.approx(per_row[2])


@pytest.mark.parametrize("is_sigmoid", [False, True])
def test_gate_slopes_are_those_of_autograd(is_sigmoid):
    network, given = model(), batch()
    if is_sigmoid:
        sigmoid_gates(network)
    inputs = []
    routers = [m for m in network.modules() if isinstance(m, Router)]
    hooks = [r.register_forward_hook(lambda m, i, o: inputs.append(i[0].detach())) for r in routers]
    before = [router.weight.clone() for router in routers]
    network(given.input_ids)
    for hook in hooks:
        hook.remove()
    expected = []
    for router, x in zip(routers, inputs, strict=True):
        logits = (x @ router.weight.T).detach().requires_grad_()
        a = logits.sigmoid() if is_sigmoid else torch.nn.functional.softplus(logits).sqrt()
        expected.append(torch.autograd.grad(a.sum(), logits)[0].flatten())
    torch.testing.assert_close(gate_slopes(network, given), torch.cat(expected), atol=1e-4, rtol=1e-3)
    assert all(torch.equal(a, r.weight) for a, r in zip(before, routers, strict=True))


def test_a_sink_that_takes_all_leaves_its_head_nothing():
    network, given = model(), batch()
    with torch.no_grad():
        network.model.layers[1].self_attn.sinks[2] = 30.0
    mass = attended(network, given)
    assert mass.shape == (3, 4, 48)
    assert mass[1, 2].max() < 1e-6 and mass[1, [0, 1, 3]].min() > 0.1


def test_no_logit_exceeds_the_bound_and_without_norms_there_is_none():
    network, given = model(), batch(4, 40)
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "kv_norm"):
                module.kv_norm.weight.mul_(3 * torch.rand(module.kv_norm.weight.shape))
    with OutlierMeter(network) as meter:
        network(given.input_ids)
        largest = max(row["attention_logit"] for row in meter.rows())
    assert 0 < largest <= logit_bound(network)
    plain_queries_and_entries(network)
    assert math.isinf(logit_bound(network))


def test_drafting_counts_what_it_says():
    network = model("with MTP")
    found = drafting(network, batch(2, 8).input_ids, 12, Sampling())
    assert 0 <= found["acceptance"] <= 1 and found["tokens_per_pass"] == pytest.approx(
        1 + found["acceptance"]
    )
    texts = torch.tensor(network.generate(batch(2, 8).input_ids, 12, stop_tokens=()).tokens)
    assert found["guess"] == pytest.approx(float(texts.flatten().bincount().max()) / 24)
    assert found["time_ratio"] > 0


def test_blocks_are_means():
    assert blocks([1, 2, 3, 4, 10], 2) == [1.5, 3.5, 10.0]


def test_differences_are_paired_and_judged_by_their_interval():
    found = difference([1.0, 2.1, 3.2], [1.1, 2.0, 3.0])
    assert found.values == pytest.approx((-0.1, 0.1, 0.2))
    # By hand: mean 0.0667, spread 0.1528, Student's 4.3027 at two degrees of freedom, over √3.
    assert found.value == pytest.approx(0.0667, abs=1e-4)
    assert found.high - found.value == pytest.approx(4.3027 * 0.15275 / 3**0.5, rel=1e-4)
    assert is_lower(found) is None and is_not_worse(found) is None
    better = difference([1.0, 1.1, 1.05], [2.0, 2.11, 2.04])
    assert is_lower(better) is True and is_not_worse(better) is True
    worse = difference([2.0, 2.11, 2.04], [1.0, 1.1, 1.05])
    assert is_lower(worse) is False and is_not_worse(worse) is False
    with pytest.raises(ValueError, match="difference: got 1 and 1 values; needs two or more"):
        difference([1.0], [1.0])


def test_every_variant_differs_from_the_base_by_what_it_names():
    base = base_config(64)
    for name, variant in VARIANTS.items():
        network = build(variant, 64, 0)
        changed = {key for key, value in network.config.to_dict().items() if base.to_dict().get(key) != value}
        assert changed - {"compress_rates"} == set(variant.config), name
    assert isinstance(build(VARIANTS["dense"], 64, 0), Transformer)
