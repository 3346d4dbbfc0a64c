"""The compiled loops: the bits of plain code, one loop for every shape, and life without a compiler."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial

import pytest
import torch
from torch._inductor.exc import InductorError

from tests.quant.test_fake_quantize import TENSORS, assert_same_bits
from workbench.quant import FORMATS, execution, fake_quantize

# A fall back to plain code would pass for equal.
pytestmark = pytest.mark.filterwarnings("error:fake_quantize")
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="needs a C++ compiler: whether compiled loops give the bits of plain code goes unchecked",
)
# One for each kernel, each way to round an element, and what a compiler has been seen to change: hif4
# rounds to BF16
# between steps, bf16 would be a cast and back.
QUICK = "mxfp4_v4 fp8_e4m3_128x128 nvfp4 hif4 hif8 bf16 int8_token_asymmetric mlu_int8_pos".split()


@needs_compiler
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FORMATS]
)
def test_compiled_and_plain_code_give_equal_bits(name):
    for x in TENSORS.values():
        assert_same_bits(fake_quantize(x, name, compiled=True), fake_quantize(x, name, compiled=False))


@needs_compiler
@pytest.mark.parametrize("name", ["mxfp4_v4", "fp8_e4m3_128x128"])
def test_one_loop_serves_every_shape_and_writes_in_place(name, rand):
    fake_quantize(rand(256, 512), name, compiled=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((384, 256), (2, 128, 1024), (300, 200)) if "128" in name else ((5, 96), (3, 7, 64)):
            x = rand(*shape)
            expected = fake_quantize(x, name, compiled=False)
            assert_same_bits(fake_quantize(x, name, compiled=True), expected)
            assert_same_bits(fake_quantize(x, name, out=torch.empty_like(x), compiled=True), expected)


@needs_compiler
def test_blocks_of_another_size_before_do_not_make_a_loop_over_blocks_of_any_size(rand, monkeypatch):
    """torch would take the size for one that varies: a slow loop, or in place a failure to compile."""
    monkeypatch.setattr(execution, "_kernels", {})
    torch._dynamo.reset()
    for shape in ((256, 512), (2, 128, 1024)):
        fake_quantize(rand(*shape), "fp8_e4m3_128x128", compiled=True)
    x = rand(64, 256).bfloat16()
    expected = fake_quantize(x, "mxfp4_v4", compiled=False)
    assert_same_bits(fake_quantize(x, "mxfp4_v4", out=x, compiled=True), expected)


@needs_compiler
def test_what_the_compiler_fails_on_goes_on_in_plain_code_alone(rand, monkeypatch):
    def broken(*tensors):
        raise InductorError(KeyError("buf1"), None)

    x = rand(4, 64)
    monkeypatch.setattr(execution, "_no_loop", set())
    monkeypatch.setattr(execution, "_compiled", lambda fmt, x: broken)
    with pytest.warns(UserWarning, match=r"failed on mxfp4 \(KeyError: 'buf1'\); going on with plain"):
        y = fake_quantize(x, "mxfp4", compiled=True)
    assert_same_bits(y, fake_quantize(x, "mxfp4", compiled=False))
    fake_quantize(x, "mxfp4", compiled=True)  # says it once
    assert {fmt.name for fmt in execution._no_loop} == {"mxfp4"}
    assert execution._compiler_works


@needs_compiler
def test_compiled_loops_work_in_place_on_16_bits_and_under_gradients(rand):
    x = rand(64, 256).bfloat16()
    expected = fake_quantize(x, "mxfp4_v4", compiled=False)
    weight = x.clone().requires_grad_()
    y = fake_quantize(weight, "mxfp4_v4", compiled=True)
    y.sum().backward()
    assert_same_bits(y.detach(), expected)
    assert torch.equal(weight.grad, torch.ones_like(x))
    assert_same_bits(fake_quantize(x, "mxfp4_v4", out=x, compiled=True), expected)


def test_a_format_is_compiled_once_enough_numbers_went_through_plain_code(rand, monkeypatch):
    used = []

    def plain(fmt, x):
        used.append(fmt.name)
        return partial(execution._whole, fmt=fmt)

    monkeypatch.setattr(execution, "COMPILE_AFTER", 3 * 128)
    monkeypatch.setattr(execution, "_rounded", Counter())
    monkeypatch.setattr(execution, "_compiled", plain)
    for _ in range(3):
        fake_quantize(rand(2, 64), "mxfp4")
    fake_quantize(rand(2, 64), "mxfp4_v4")
    assert used == []
    fake_quantize(rand(2, 64), "mxfp4")
    assert used == ["mxfp4"]
    fake_quantize(rand(2, 64), "mxfp4", compiled=False)
    assert used == ["mxfp4"]


def test_without_a_compiler_plain_code_goes_on_and_says_so_once(tmp_path):
    program = """
import torch, warnings
from workbench.quant import fake_quantize, quantize
x = torch.randn(4, 64)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name in ("mxfp4", "mxfp4", "bf16"):
        assert torch.equal(fake_quantize(x, name, compiled=True), quantize(x, name).dequantize())
print([str(w.message) for w in caught if "fake_quantize" in str(w.message)])
"""
    environment = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no working C++ compiler") == 1
