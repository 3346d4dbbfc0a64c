"""Whole block formats against the libraries that others quantise with, each where it is installed."""

import dataclasses

import gfloat
import gfloat.formats
import numpy as np
import pytest
import torch

from workbench.quant import ELEMENTS, FORMATS, quantize

RULES = ("floor", "ceil", "rceil", "even")


def peer(name):
    return pytest.importorskip(name, reason=f"{name} is not installed: our blocks go unchecked against it")


def numbers(rows=64, columns=256, octaves=6):
    """Half normal, half on a coarse grid rich in ties, in blocks of very different size."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(rows, columns, generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.5, (x * 16).round() / 8, x)
    size = torch.randint(-octaves, octaves + 1, (rows, columns // 32), generator=generator)
    return x * torch.exp2(size.float()).repeat_interleave(32, dim=1)


def mx(element, rule, ties="even"):
    return dataclasses.replace(FORMATS["mxfp4"], name="made", element=ELEMENTS[element], rule=rule, ties=ties)


@pytest.mark.parametrize(
    ("element", "info"),
    [
        ("e2m1", gfloat.formats.format_info_mxfp4_e2m1), ("e4m3fn", gfloat.formats.format_info_mxfp8_e4m3),
        ("e5m2", gfloat.formats.format_info_mxfp8_e5m2), ("e2m3", gfloat.formats.format_info_mxfp6_e2m3),
        ("e3m2", gfloat.formats.format_info_mxfp6_e3m2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_floor_rule_is_gfloats(element, info):
    x = numbers(rows=4, columns=128)
    ours = quantize(x, mx(element, "floor")).dequantize()
    for block, mine in zip(x.reshape(-1, 32).double().numpy(), ours.reshape(-1, 32), strict=True):
        theirs = gfloat.quantize_block(info, block, gfloat.compute_scale_amax)
        assert mine.tolist() == np.asarray(theirs).tolist()


@pytest.mark.parametrize("element", ["e2m1", "e4m3fn", "e5m2", "e2m3", "e3m2"])
@pytest.mark.parametrize("rule", RULES)
def test_torchaos_mx_in_its_four_modes(element, rule):
    module = peer("torchao.prototype.mx_formats.mx_tensor")
    kinds = {"e2m1": torch.float4_e2m1fn_x2, "e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
    kind = kinds.get(element, {"e2m3": "fp6_e2m3", "e3m2": "fp6_e3m2"}.get(element))
    mode = getattr(module.ScaleCalculationMode, rule.upper())
    x = numbers()
    theirs = module.MXTensor.to_mx(x, kind, 32, scaling_mode=mode)
    ours = quantize(x, mx(element, rule))
    assert torch.equal(ours.scales, theirs.scale.view(torch.uint8))
    assert torch.equal(ours.dequantize(), theirs.dequantize(torch.float32))
    if element == "e2m1":
        assert torch.equal(ours.packed()["codes"], theirs.qdata.view(torch.uint8))


@pytest.mark.parametrize("name", ["nvfp4", "nvfp4_single"])
def test_torchaos_nvfp4(name):
    module = peer("torchao.prototype.mx_formats.nvfp4_tensor")
    x = numbers(octaves=1)  # so that its floor of 2^-6 for scales is not reached
    g = module.per_tensor_amax_to_scale(x.abs().max()) if name == "nvfp4" else None
    theirs = module.NVFP4Tensor.to_nvfp4(x, per_tensor_scale=g)
    ours = quantize(x, name)
    assert torch.equal(ours.dequantize(), theirs.dequantize(torch.float32))
    assert torch.equal(ours.packed()["codes"], theirs.qdata.view(torch.uint8))


def test_modelopts_mxfp4_rounds_ties_toward_zero():
    module = peer("modelopt.torch.quantization.qtensor.mxfp4_tensor")
    x = numbers()
    theirs, scales = module.MXFP4QTensor.quantize(x, block_size=32)
    ours = quantize(x, "mxfp4_modelopt")
    assert torch.equal(
        ours.dequantize(), theirs.dequantize(dtype=torch.float32, scale=scales, block_sizes={-1: 32})
    )


def test_modelopts_nvfp4():
    module = peer("modelopt.torch.quantization.qtensor.nvfp4_tensor")
    x = numbers() + 0.0  # it stores +0 for -0
    theirs, scale, double_scale = module.NVFP4QTensor.quantize(x, 16, try_tensorrt=False)
    ours = quantize(x, "nvfp4")
    assert torch.equal(ours.scales, scale.view(torch.uint8))
    assert ours.tensor_scale == double_scale
    assert torch.equal(ours.packed()["codes"], theirs._quantized_data)


@pytest.mark.parametrize("element", ["e2m1", "e4m3fn"])
def test_compressed_tensors_mx_rules(element):
    """EVEN for FP4, RCEIL for FP8."""
    arguments = peer("compressed_tensors.quantization")
    lifecycle = peer("compressed_tensors.quantization.lifecycle.forward")
    helpers = peer("compressed_tensors.quantization.utils")
    bits = ELEMENTS[element].bits
    how = arguments.QuantizationArgs(
        num_bits=bits, type="float", strategy="group", group_size=32, symmetric=True, dynamic=False,
        scale_dtype=torch.uint8, zp_dtype=torch.uint8,
    )  # fmt: skip
    x = numbers()
    blocks = x.unflatten(1, (-1, 32))
    scale, zero = helpers.calculate_qparams(blocks.amin(-1), blocks.amax(-1), how)
    theirs = lifecycle.fake_quantize(x, scale.float(), zero, how)
    ours = quantize(x, mx(element, "even" if element == "e2m1" else "rceil"))
    assert torch.equal(ours.dequantize(), theirs.float())


@pytest.mark.parametrize(("element", "word"), [("e2m1", "fp4"), ("e4m3fn", "fp8_e4m3"), ("e5m2", "fp8_e5m2")])
@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
def test_amd_quarks_mx_in_its_three_modes(element, word, rule):
    peer("quark.torch.kernel")
    x = numbers()
    theirs = torch.ops.quark.non_scaled_fake_quantize(x, "mx", word, -1, 32, rule)
    assert torch.equal(quantize(x, mx(element, rule)).dequantize(), theirs)
