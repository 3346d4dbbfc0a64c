"""A V4 without one of its parts is the network that a loop from its equations gives."""

import pytest
import torch

import workbench.model.attention as attention_module
from workbench.model import Transformer
from workbench.model.attention import Attention
from workbench.model.experts import HashRouter, Router
from workbench.model.layout import Layout
from workbench.training.studies.switches import (
    FreeConnection,
    hyper_connections,
    plain_queries_and_entries,
    plain_residuals,
    sigmoid_gates,
)
from workbench.training.studies.variants import base_config

IDS = torch.randint(0, 64, (2, 37), generator=torch.Generator().manual_seed(0))


def fresh(**changes):
    config = base_config(64).replace(**changes)
    return Transformer(config, generator=torch.Generator().manual_seed(3))


def stirred(model):
    """With weights that training could have reached: no scale, base or gain at its first value."""
    generator = torch.Generator().manual_seed(4)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return model


def test_a_sigmoid_gate_weighs_by_the_sigmoid_and_keeps_the_hash():
    model = fresh()
    before = [m.e_score_correction_bias for m in model.modules() if type(m) is Router]
    sigmoid_gates(model)
    routers = [m for m in model.modules() if isinstance(m, Router)]
    assert any(isinstance(m, HashRouter) for m in routers) and before
    x, ids = torch.randn(5, 64), IDS[0, :5]
    for router in routers:
        weights, experts = router(x, ids)
        affinity = 1 / (1 + (-(x @ router.weight.T)).exp())
        if isinstance(router, HashRouter):
            assert torch.equal(experts, router.tid2eid[ids])
        else:
            assert torch.equal(experts.sort(-1)[0], affinity.topk(2, -1).indices.sort(-1)[0])
        chosen = affinity.gather(1, experts)
        torch.testing.assert_close(weights, chosen / chosen.sum(-1, keepdim=True) * router.scaling)


def test_one_stream_held_still_is_the_plain_residual():
    model = fresh(hc_mult=1)
    plain_residuals(model)
    stirred(model)
    x = model.model.embed_tokens(IDS)
    layout = Layout(model.model.rotary_emb, torch.arange(37)[None], 2, model.v4.sliding_window, model.dtype)
    for layer in model.model.layers:
        x = x + layer.self_attn(layer.input_layernorm(x), layout)
        x = x + layer.mlp(layer.post_attention_layernorm(x), IDS)
    # The eps of norms and of Sinkhorn's passes are all that is left between the two.
    torch.testing.assert_close(model(IDS), model.lm_head(model.model.norm(x)), atol=2e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="plain_residuals: got hc_mult=4"):
        plain_residuals(fresh())


def test_free_connections_follow_the_papers_equations():
    model = fresh()
    hyper_connections(model)
    site = model.model.layers[1].attn_hc
    assert isinstance(site, FreeConnection) and site.base[:4].tolist() == [0, 0, 1, 0]
    stirred(model)
    streams = torch.randn(1, 3, 4, 64)
    mixing, x, mixed = site(streams)
    for t in range(3):
        flat = streams[0, t].flatten()
        dynamic = torch.tanh(site.fn @ (flat / (flat.square().mean() + 1e-6).sqrt()))
        pre = site.scale[0] * dynamic[:4] + site.base[:4]
        post = site.scale[1] * dynamic[4:8] + site.base[4:8]
        comb = (site.scale[2] * dynamic[8:] + site.base[8:]).view(4, 4)
        torch.testing.assert_close(mixing.pre[0, t], pre)
        torch.testing.assert_close(mixing.post[0, t], post)
        torch.testing.assert_close(mixing.comb[0, t], comb)
        torch.testing.assert_close(x[0, t], sum(pre[j] * streams[0, t, j] for j in range(4)))
        torch.testing.assert_close(mixed[t], torch.stack([comb[:, k] @ streams[0, t] for k in range(4)]))


def test_without_norms_attention_is_that_of_the_plain_vectors(monkeypatch):
    model, twin = stirred(fresh()), stirred(fresh())
    plain_queries_and_entries(model)
    for module in twin.modules():
        if isinstance(module, Attention):
            module.kv_norm = torch.nn.Identity()
            if module.compressor is not None:
                module.compressor.kv_norm = torch.nn.Identity()
    monkeypatch.setattr(attention_module, "LOGIT_ELEMENTS", 1 << 11)  # several ranges of queries
    plain = model(IDS)
    with_norm = twin(IDS)
    monkeypatch.setattr(attention_module, "rms_norm", lambda x, weight, eps: x * weight)
    torch.testing.assert_close(plain, twin(IDS), atol=1e-4, rtol=1e-3)
    assert (plain - with_norm).abs().max() > 0.01
