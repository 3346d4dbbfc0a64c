"""GPTQ against the textbook: one channel at a time, with a fresh inverse for what is left."""

import numpy as np
import pytest
import torch

from tests.oracles.quant_small import small_model, small_text
from workbench.quant import FORMATS, Recipe, Rule, apply, ptq
from workbench.quant.hadamard import rotate_blocks
from workbench.quant.products import sites
from workbench.quant.ptq.gptq import DAMPING, gptq_round
from workbench.quant.ptq.inputs import record_inputs, stacked
from workbench.quant.ptq.scaling import output_error
from workbench.quant.recipes import experts_in

FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def nearest_fp4(x):
    """Loops over the eight values; a tie goes to the even code."""
    best = min(range(8), key=lambda code: (abs(FP4[code] - min(abs(x), 6)), code % 2))
    return np.copysign(FP4[best], x)


def textbook(weight, moment):
    """Optimal brain quantisation in a fixed order, each step's inverse taken anew in float64.

    Scales: V4's, of the weight as it was: the least power of two that clips nothing of 32 neighbours.
    """
    w, (n, k) = weight.astype(np.float64), weight.shape
    h = moment + DAMPING * np.mean(np.diag(moment)) * np.eye(k)
    scale = np.empty((n, k))
    for i in range(n):
        for j in range(k):
            group = np.abs(weight[i, j // 32 * 32 : (j // 32 + 1) * 32]).max()
            scale[i, j] = 2.0 ** np.ceil(np.log2(group / 6))
    out = np.empty((n, k))
    for j in range(k):
        inverse = np.linalg.inv(h[j:, j:])
        for i in range(n):
            out[i, j] = nearest_fp4(w[i, j] / scale[i, j]) * scale[i, j]
            w[i, j:] -= (w[i, j] - out[i, j]) / inverse[0, 0] * inverse[0]
    return out


def correlated(rand, tokens, k):
    """Inputs whose channels go together, as a network's do."""
    return rand(tokens, k) + 2 * rand(tokens, 3) @ rand(3, k)


def test_gptq_equals_the_textbook_loop(rand):
    weight, x = rand(5, 160), correlated(rand, 300, 160)  # 160: a whole lazy block, and a part of one
    moment = x.mT @ x
    ours = gptq_round(weight, moment, FORMATS["mxfp4_v4"]).dequantize()
    theirs = textbook(weight.numpy(), moment.double().numpy())
    # A number within fp32's error of a midpoint may differ by a step, and what follows it with it.
    assert np.mean(np.abs(ours.numpy() - theirs) < 1e-6) > 0.99
    errors = [(((out - weight.numpy()) @ x.numpy().T) ** 2).sum() for out in (ours.numpy(), theirs)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def test_inputs_without_correlation_leave_plain_rounding(rand):
    weight = rand(6, 64)
    fmt = FORMATS["mxfp4_v4"]
    plain = fmt.quantize(weight)
    for moment in (torch.eye(64), torch.diag(torch.rand(64) + 0.5), torch.zeros(64, 64)):
        assert torch.equal(gptq_round(weight, moment, fmt).codes, plain.codes)


@pytest.mark.parametrize(
    "name",
    ["mxfp4_v4", "nvfp4", "int4_channel", "int4_group32", "int8_channel", "fp8_e4m3_128x128", "int8_tensor"],
)
def test_gptq_beats_plain_rounding_on_the_outputs(name, rand):
    weight, x = rand(40, 96) * (1 + rand(1, 96).abs()), correlated(rand, 500, 96)
    fmt, moment = FORMATS[name], x.mT @ x

    def error(rounded):
        return float(((rounded.dequantize() - weight) @ x.mT).square().sum())

    ours, plain = gptq_round(weight, moment, fmt), fmt.quantize(weight)
    assert error(ours) < 0.6 * error(plain)
    assert torch.equal(ours.scales, plain.scales)


def test_inputs_are_gathered_expert_by_expert():
    model, ids = small_model(), small_text()
    recipe = Recipe("all", *(3 * [Rule(("int8_channel",))]))
    seen = {}

    def keep(name):
        return lambda module, inputs: seen.__setitem__(name, inputs)

    layer = model.model.layers[1]
    hooks = [
        layer.mlp.experts.register_forward_pre_hook(keep("experts")),
        layer.self_attn.o_a_proj.register_forward_pre_hook(keep("o_a")),
        layer.self_attn.q_a_proj.register_forward_pre_hook(keep("q_a")),
    ]
    found = record_inputs(model, recipe, [ids])
    for hook in hooks:
        hook.remove()

    def check(inputs, slot, x):
        torch.testing.assert_close(inputs.second_moment[slot], x.mT @ x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(inputs.largest[slot], x.abs().amax(dim=0))
        torch.testing.assert_close(inputs.total[slot] / inputs.tokens[slot], x.abs().mean(dim=0))

    x, _, chosen = seen["experts"]
    for expert in range(5):
        rows = x[(chosen == expert).any(dim=1)]
        check(found["model.layers.1.mlp.experts.gate_up_proj"], expert, rows)
    check(found["model.layers.1.self_attn.q_a_proj"], 0, seen["q_a"][0].flatten(0, 1))
    o = seen["o_a"][0].flatten(0, 1)
    for group in range(2):
        check(found["model.layers.1.self_attn.o_a_proj"], group, o[:, group * 96 : (group + 1) * 96])


def test_recording_changes_nothing_and_ends():
    model, ids = small_model(), small_text()
    before = model(ids)
    record_inputs(model, experts_in("mxfp4_v4"), [ids])
    assert torch.equal(model(ids), before)


@pytest.mark.parametrize("method", ["gptq", "mr-gptq"])
def test_a_calibrated_network_rounds_better_than_a_plain_one(method):
    """On the calibration inputs every stack's output error falls, rotated back where it was rotated."""
    model, batches = small_model(), [small_text(4, 96, seed) for seed in (1, 2)]
    recipe = experts_in("mxfp4_v4")
    inputs = record_inputs(model, recipe, batches)
    found = ptq.calibrate(model, recipe, batches, method)
    assert set(found) == set(inputs)
    total = torch.zeros(2)
    for name, site in sites(model).items():
        if name not in found:
            continue
        stack = stacked(site)
        ours = torch.stack([codes.dequantize() for codes in found[name].codes])
        if method == "mr-gptq":
            assert found[name].rotation == 32
            ours = rotate_blocks(ours, 32)
        plain = FORMATS["mxfp4_v4"].quantize(stack).dequantize()
        ours_is, plain_is = (float(output_error(w - stack, inputs[name])) for w in (ours, plain))
        assert ours_is < plain_is, name
        total += torch.tensor([ours_is, plain_is])
    assert total[0] < 0.9 * total[1]
    exact = model(batches[0]).detach()
    with apply(model, recipe):
        plain_loss = float((model(batches[0]).detach() - exact).square().mean())
    with apply(model, recipe, found):
        assert float((model(batches[0]).detach() - exact).square().mean()) < plain_loss


def test_a_format_without_one_scale_a_block_is_refused():
    model = small_model()
    with pytest.raises(ValueError, match=r"GPTQ got format 'hif4' .* needs one scale a block"):
        ptq.calibrate(model, Recipe("a", linear=Rule(("hif4",))), [small_text()], "gptq")
    with pytest.raises(ValueError, match="method 'obq' is unknown; choose one of"):
        ptq.calibrate(model, experts_in("mxfp4_v4"), [small_text()], "obq")
