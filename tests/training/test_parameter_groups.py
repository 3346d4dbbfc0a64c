"""Which optimiser each kind of parameter gets, against the report's list."""

import re

import pytest
import torch

import workbench as wb
from workbench.model import Transformer
from workbench.training.parameter_groups import make_optimizers, parameter_groups

# The report's list for AdamW (section 2.4), and what we add: sinks and position biases.
ADAMW = "|".join(
    (
        r"embed_tokens\.weight|lm_head\.weight",
        r"norm\.weight|layernorm\.weight",
        r"_hc\.(base|scale)|hc_head\.hc_(base|scale)",
        r"sinks|position_bias",
    )
)


@pytest.fixture(scope="module")
def model():
    return Transformer(wb.load_config("tiny"), generator=torch.Generator().manual_seed(0))


def test_every_parameter_has_one_optimiser_the_one_of_the_report(model):
    muon, adamw = (
        [name for group in groups for name in group["names"]] for groups in parameter_groups(model)
    )
    assert sorted(muon + adamw) == sorted(name for name, _ in model.named_parameters())
    assert all(re.search(f"({ADAMW})$", name) for name in adamw)
    assert not any(re.search(f"({ADAMW})$", name) for name in muon)


def test_stacked_matrices_are_known(model):
    parts = {name: g["parts"] for g in parameter_groups(model)[0] for name in g["names"]}
    at = "model.layers.0"
    assert parts[f"{at}.mlp.experts.gate_up_proj"] == 2
    assert parts[f"{at}.self_attn.o_a_proj.weight"] == model.v4.o_groups
    assert parts[f"{at}.mlp.experts.down_proj"] == parts[f"{at}.attn_hc.fn"] == 1


def test_a_few_steps_lower_the_loss(model):
    optimizers = make_optimizers(model, 0.01)
    ids = torch.randint(64, (4, 24), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(6):
        model.zero_grad()
        loss = model.loss(ids, mtp_weight=0.3)
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < losses[0] - 0.5


def test_adamw_has_the_reports_constants(model):
    (group,) = make_optimizers(model, 0.01)[1].param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.95), 1e-20, 0.1)
