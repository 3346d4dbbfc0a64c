"""The meters against `observe` and against the layers' own weights, and the clamp as a bound."""

import math

import pytest
import torch
import torch.nn.functional as F

import workbench as wb
from workbench.model import Transformer
from workbench.training.outliers import METERS, OutlierMeter


@pytest.fixture
def model():
    config = wb.load_config("tiny").replace(
        num_nextn_predict_layers=0, compress_ratios=[0, 8, 4, 8, 4], swiglu_limit=0.05
    )
    network = Transformer(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(3 if p.ndim > 1 else 1)
        for layer in network.model.layers:
            layer.self_attn.sinks.normal_(generator=torch.Generator().manual_seed(3))
    return network


def ids(seed):
    return torch.randint(64, (2, 29), generator=torch.Generator().manual_seed(seed))


def test_logits_and_norms_are_those_observed(model):
    with OutlierMeter(model) as meter:
        model.loss(ids(0))
        rows = meter.rows()
    seen = wb.model.observe(model, ids(0)).layers
    for row in rows:
        layer = seen[row["layer"]]
        assert row["attention_logit"] == pytest.approx(layer.attention.largest_logit.max().item(), rel=1e-4)
        assert row["residual_norm"] == pytest.approx(layer.residual_norms.max().item(), rel=1e-5)


def test_expert_outputs_are_a_loop_over_tokens(model):
    inputs = []
    hook = model.model.layers[3].mlp.experts.register_forward_hook(lambda m, i, o: inputs.append(i))
    with OutlierMeter(model) as meter:
        model.loss(ids(0))
        row = meter.rows()[3]
    hook.remove()
    x, weights, chosen = inputs[0]
    experts, limit = model.model.layers[3].mlp.experts, model.config.swiglu_limit
    largest = 0.0
    for token in range(len(x)):
        y = torch.zeros(x.shape[1])
        for weight, e in zip(weights[token], chosen[token], strict=True):
            gate, up = (experts.gate_up_proj[e] @ x[token]).chunk(2)
            inner = F.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)
            y = y + weight * (experts.down_proj[e] @ inner)
        largest = max(largest, y.abs().max().item())
    assert row["expert_output"] == pytest.approx(largest, rel=1e-4)


def test_the_largest_since_last_asked_counts(model):
    def alone(seed):
        with OutlierMeter(model) as meter:
            model.loss(ids(seed))
            return meter.rows()

    one, other = alone(0), alone(1)
    with OutlierMeter(model) as meter:
        model.loss(ids(0))
        model.loss(ids(1))
        both = meter.rows()
        model.loss(ids(1))
        last = meter.rows()
    assert last == other != one
    for row, a, b in zip(both, one, other, strict=True):
        assert row == {"layer": a["layer"]} | {name: max(a[name], b[name]) for name in METERS}


def test_nothing_is_watched_outside_and_not_a_number_stays(model):
    with OutlierMeter(model) as meter:
        model.loss(ids(0))
    meter.rows()
    model.loss(ids(0))
    assert all(row[name] == 0 for row in meter.rows() for name in METERS)
    with OutlierMeter(model) as meter, torch.no_grad():
        model.model.layers[2].mlp.experts.down_proj[:, 0, 0] = math.nan
        model.loss(ids(0))
        model.model.layers[2].mlp.experts.down_proj.zero_()
        model.loss(ids(0))
        assert math.isnan(meter.rows()[2]["expert_output"])


@pytest.mark.parametrize("limit", [0.05, math.inf])
def test_the_clamp_is_a_setting_and_bounds_the_activation(model, limit):
    network = Transformer(model.config.replace(swiglu_limit=limit))
    network.load_state_dict(model.state_dict())
    with OutlierMeter(network) as meter:
        network.loss(ids(0)).backward()
        largest = max(row["shared_activation"] for row in meter.rows())
    # silu never falls below -0.2785, and a small limit lets it: the gate has no lower clamp.
    assert (largest <= 0.2785 * 0.05) == (limit == 0.05)


def test_a_wide_clamp_changes_nothing(model):
    wide, none = (Transformer(model.config.replace(swiglu_limit=limit)) for limit in (10.0, math.inf))
    for network in (wide, none):
        network.load_state_dict(model.state_dict())
    assert wide.loss(ids(0)).item() == none.loss(ids(0)).item() != model.loss(ids(0)).item()
