"""Gains of trained networks: a product written as a loop, and a record that is whole."""

import itertools

import pytest
import torch

from workbench.model import observe
from workbench.training.gain_study import (
    FACTORS,
    SEEDS,
    STREAMS,
    composite_gains,
    network,
    read_study,
    run,
)


def test_the_gain_is_that_of_the_product_site_by_site():
    model = network("free", 0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("hc.scale"):
                p.fill_(0.5)
    ids, samples = torch.randint(64, (1, 5)), torch.zeros(1, 5, dtype=torch.long)
    found = composite_gains(model, ids, samples)
    product = torch.eye(4, dtype=torch.float64).expand(5, 4, 4)
    for layer in observe(model, ids, sample_ids=samples).layers.values():
        for maps in (layer.attn_mixing, layer.ffn_mixing):
            product = maps.comb[0].double().mT @ product  # comb is source by destination
    signal = product.abs().sum(-1).amax(-1)
    gradient = product.abs().sum(-2).amax(-1)
    assert found["signal"] == pytest.approx(float(signal.mean()))
    assert found["gradient"] == pytest.approx(float(gradient.mean()))
    assert found["worst"] == pytest.approx(float(torch.maximum(signal, gradient).max()))
    assert found["signal"] > 2


def test_fresh_free_streams_pass_signals_on_and_the_manifold_keeps_them_below_one():
    ids, samples = torch.randint(64, (2, 7)), torch.zeros(2, 7, dtype=torch.long)
    assert composite_gains(network("free", 0), ids, samples)["worst"] < 1.5
    assert composite_gains(network("mHC", 0), ids, samples)["signal"] <= 1 + 1e-5


def test_a_run_is_repeated_to_the_bit():
    first = run("free", 1, 0, steps=3)
    assert first == run("free", 1, 0, steps=3)
    assert first["fresh"] != first["trained"]


def test_an_unknown_kind_lists_those_there_are():
    with pytest.raises(ValueError, match=r"^network: got streams 'wide'; needs one of"):
        network("wide", 0)


def test_the_record_has_every_run():
    assert set(read_study()) == set(itertools.product(STREAMS, FACTORS, SEEDS))
