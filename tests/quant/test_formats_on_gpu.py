"""Formats on a CUDA device: the codes, scales and numbers of the CPU."""

import pytest
import torch

from workbench.quant import FORMATS, fp4_to_fp8, mxfp4_to_nvfp4, quantize

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none"),
]


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_numbers_are_those_of_the_cpu(name, rand):
    x = rand(128, 512)
    here, there = quantize(x, name), quantize(x.cuda(), name)
    assert torch.equal(there.codes.cpu(), here.codes)
    assert torch.equal(there.dequantize().cpu(), here.dequantize())
    for role, tensor in here.packed().items():
        assert torch.equal(there.packed()[role].cpu(), tensor)
    back = FORMATS[name].unpack(there.packed(), there.shape)
    assert torch.equal(back.dequantize().cpu(), here.dequantize())


def test_conversions_are_those_of_the_cpu(rand):
    x = rand(130, 160)
    for convert in (fp4_to_fp8, mxfp4_to_nvfp4):
        here, there = (convert(quantize(t, "mxfp4_v4")) for t in (x, x.cuda()))
        assert torch.equal(there.dequantize().cpu(), here.dequantize())


def test_the_devices_own_fp8_cast_gives_the_same_codes(rand):
    """The cast that V4's kernels use, after their clamp."""
    x = torch.cat((rand(10_000) * 100, torch.arange(2**16).to(torch.int16).view(torch.bfloat16).float()))
    x = x[x.isfinite()].clamp(-448, 448)
    theirs = x.cuda().to(torch.float8_e4m3fn).view(torch.uint8).cpu()
    assert torch.equal(quantize(x, "e4m3fn").codes, theirs)
