"""The step of one token in numpy against the modules, which test_v4_parity.py holds against transformers."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import workbench as wb
from tests.oracles.v4_peer import configurations, peer
from workbench.model import Transformer
from workbench.model.one_token import one_token


def network(config, seed: int = 0) -> Transformer:
    model = Transformer(config).eval()
    model.load_state_dict(peer(config, seed).state_dict())
    return model


@pytest.fixture
def tiny():
    ratios = [0, 8, 4, 8, 4]
    model = network(wb.load_config("tiny").replace(num_nextn_predict_layers=0, compress_ratios=ratios))
    return model, torch.randint(64, (1, 30), generator=torch.Generator().manual_seed(1))


def token_by_token(model, ids, cache, begin, end):
    with torch.no_grad():
        return torch.cat([model(ids[:, i : i + 1], cache=cache) for i in range(begin, end)], dim=1)


@settings(
    max_examples=12, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.data_too_large]
)
@given(configurations(), st.integers(0, 99), st.integers(0, 40), st.integers(0, 4), st.data())
def test_a_token_at_a_time_is_what_the_modules_read_at_once(config, seed, n_read, max_rewind, data):
    model = network(config, seed)
    ids = torch.randint(config.vocab_size, (1, 45), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = model(ids)
        cache = model.new_cache(1, 45, max_rewind)
        if n_read:
            model(ids[:, :n_read], cache=cache)
    assert one_token(model, cache) is not None
    close = dict(rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    logits = token_by_token(model, ids, cache, n_read, 45)
    torch.testing.assert_close(logits, expected[:, n_read:], **close)
    back = data.draw(st.integers(0, min(max_rewind, 45)))
    cache.rewind(back)
    logits = token_by_token(model, ids, cache, 45 - back, 45) if back else logits
    torch.testing.assert_close(logits[:, -1], expected[:, -1], **close)


def test_it_leaves_the_cache_as_the_modules_do(tiny):
    model, ids = tiny
    stepped, read = model.new_cache(1, 30), model.new_cache(1, 30)
    token_by_token(model, ids, stepped, 0, 30)
    with torch.no_grad():
        model(ids, cache=read)
    for name, tensor in read.tensors().items():
        # Doubling makes pools of other sizes; what lies past the entries is arbitrary.
        mine = stepped.tensors()[name]
        rows = min(len(mine), len(tensor))
        torch.testing.assert_close(mine[:rows], tensor[:rows], rtol=0, atol=1e-5, msg=name)


def test_weights_that_change_in_place_or_are_replaced_are_seen(tiny):
    model, ids = tiny
    changes = (
        lambda: model.model.layers[0].self_attn.o_b_proj.weight.data.mul_(1.5),
        lambda: model.model.layers[1].mlp.double().float().experts.gate_up_proj.data.mul_(2),
        lambda: setattr(model.model.layers[2], "attn_hc", copy.deepcopy(model.model.layers[0].attn_hc)),
        lambda: setattr(model.model.layers[3].self_attn, "sinks", torch.nn.Parameter(torch.ones(4))),
    )
    for change in changes:
        cache = model.new_cache(1, 30)
        before = token_by_token(model, ids, cache, 0, 30)
        change()
        with torch.no_grad():
            expected = model(ids)
        assert not torch.allclose(before, expected, atol=1e-4)
        after = token_by_token(model, ids, model.new_cache(1, 30), 0, 30)
        torch.testing.assert_close(after, expected, rtol=0, atol=2e-5)


def test_hooks_other_classes_and_counters_get_the_modules(tiny):
    model, _ = tiny
    cache = model.new_cache(1, 30)
    seen = []
    hook = model.model.layers[1].mlp.gate.register_forward_hook(lambda *_: seen.append(1))
    assert one_token(model, cache) is None
    token_by_token(model, torch.tensor([[3]]), cache, 0, 1)
    assert len(seen) == 1
    hook.remove()
    assert one_token(model, cache) is not None
    attention = model.model.layers[0].self_attn
    linear = attention.q_a_proj
    linear.__class__ = type("Quantised", (torch.nn.Linear,), {})
    assert one_token(model, cache) is None
    linear.__class__ = torch.nn.Linear
    with FlopCounterMode(display=False) as counter:
        token_by_token(model, torch.tensor([[3, 4]]), cache, 1, 2)
    assert counter.get_total_flops() > 2 * sum(
        p.numel() for p in model.model.layers[0].self_attn.parameters()
    )
    assert one_token(model.to(torch.bfloat16), model.new_cache(1, 30)) is None
    assert one_token(model, model.new_cache(2, 30)) is None
