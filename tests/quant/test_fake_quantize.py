"""fake_quantize against quantize and dequantize: values, gradients, memory, and what it refuses."""

import dataclasses

import pytest
import torch

from workbench.quant import FORMATS, execution, fake_quantize, quantize

WIDTH = 512  # what every format divides, a KV entry included


def tensors():
    """By name: ordinary, tied, of very different size by row and by number, at the ends of fp32, zeros."""
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(256, WIDTH, generator=generator)
    by_number = torch.randint(-60, 60, normal.shape, generator=generator)
    by_row = torch.randint(-140, 120, (256, 1), generator=generator)
    sparse = torch.where(torch.rand(normal.shape, generator=generator) < 0.02, normal, -0.0)
    return {
        "normal": normal,
        "ties": (normal * 4).round() / 4,
        "bf16 numbers": normal.bfloat16().float(),
        "wide": normal * torch.exp2(by_number.float()),
        "wide rows": normal * torch.exp2(by_row.double()).float(),
        "subnormal": normal * 2.0**-130,
        "huge": normal.clamp(-3.9, 3.9) * 2.0**126,
        "sparse": sparse,
        "zeros": torch.zeros_like(normal),
    }


TENSORS = tensors()


def assert_same_bits(y, expected):
    assert y.dtype == expected.dtype
    is_nan = expected.isnan()
    assert torch.equal(y.isnan(), is_nan)
    y, expected = (torch.where(is_nan, 0, t) for t in (y, expected))
    kind = torch.int32 if y.dtype == torch.float32 else torch.int16
    assert torch.equal(y.view(kind), expected.view(kind))


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("name", FORMATS)
def test_it_is_what_the_codes_decode_to(name, kind):
    x = TENSORS[kind]
    assert_same_bits(fake_quantize(x, name, compiled=False), quantize(x, name).dequantize())


@pytest.mark.parametrize("rule", ["floor", "ceil", "rceil", "even"])
@pytest.mark.parametrize("ties", ["even", "away", "zero"])
def test_formats_that_the_table_does_not_have(rule, ties):
    fmt = dataclasses.replace(FORMATS["mxfp6_e2m3"], name="made", rule=rule, ties=ties)
    x = TENSORS["wide"]
    assert_same_bits(fake_quantize(x, fmt), quantize(x, fmt).dequantize())


def test_the_inverse_order_is_kept():
    fmt = dataclasses.replace(FORMATS["fp8_e4m3_1x128"], name="made", order="mul_inv")
    x = TENSORS["bf16 numbers"]
    y = fake_quantize(x, fmt)
    assert_same_bits(y, quantize(x, fmt).dequantize())
    assert not torch.equal(y, fake_quantize(x, "fp8_e4m3_1x128"))


def test_stochastic_rounding_draws_what_quantize_draws():
    fmt = dataclasses.replace(FORMATS["mxfp4_ceil"], name="made", ties="stochastic")
    x = TENSORS["normal"]
    y, expected = (f(x, fmt, generator=torch.Generator().manual_seed(5)) for f in (fake_quantize, quantize))
    assert_same_bits(y, expected.dequantize())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fp8_e4m3_128x128_ue8m0", (2, 130, 257)), ("fp8_e4m3_128x128", (1, 5)), ("mxfp4", (32,)),
        ("bf16", ()),
        ("mxfp4", (3, 0)), ("int8_token", (3, 5, 7)), ("fp8_e4m3_tensor", (7, 11, 13)), ("nvfp4", (7, 3, 16)),
        ("hif4", (2, 3, 64)), ("kv_v4", (3, 2, 512)), ("int8_token_asymmetric", (2, 5, 9)), ("e2m1", (5, 3)),
    ],
)  # fmt: skip
def test_odd_shapes(name, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    y = fake_quantize(x, name)
    assert y.is_contiguous()
    assert_same_bits(y, quantize(x, name).dequantize())


@pytest.mark.parametrize("name", ["mxfp4_v4", "fp8_e4m3_128x128", "nvfp4", "hif8", "mlu_int8_pos"])
def test_chunks_do_not_show(name, rand, monkeypatch):
    x = rand(384, 640)
    whole = fake_quantize(x, name)
    monkeypatch.setattr(execution, "_CHUNK", 1 << 12)
    assert_same_bits(fake_quantize(x, name), whole)


@pytest.mark.parametrize(
    "name", ["mxfp4_v4", "fp8_e4m3_128x128_ue8m0", "nvfp4", "hif4", "bf16", "mlu_int8_offset"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_come_back_as_sixteen_bits(name, dtype, rand):
    x = rand(128, 256).to(dtype)
    assert_same_bits(fake_quantize(x, name), quantize(x, name).dequantize().to(dtype))


def test_strided_input_is_rounded_along_its_last_axis(rand):
    x = rand(64, 96).T
    assert_same_bits(fake_quantize(x, "mxfp4"), quantize(x, "mxfp4").dequantize())


@pytest.mark.parametrize("name", ["mxfp4", "fp8_e4m3_128x128", "mlu_int8_offset", "int8_tensor"])
def test_out_is_written_and_returned_and_may_be_the_input(name, rand):
    x = rand(130, 256)
    expected = quantize(x, name).dequantize()
    out = torch.full_like(x, 7)
    assert fake_quantize(x, name, out=out) is out
    assert_same_bits(out, expected)
    assert fake_quantize(x, name, out=x) is x
    assert_same_bits(x, expected)


def test_a_result_on_large_pages_is_a_whole_tensor():
    x = torch.randn(1 << 23, generator=torch.Generator().manual_seed(1)).view(-1, 1024)
    y = fake_quantize(x, "int4_group32")
    for rows in (slice(0, 64), slice(-64, None)):
        assert_same_bits(y[rows], quantize(x[rows], "int4_group32").dequantize())


@pytest.mark.parametrize("name", ["mxfp4_v4", "fp8_e4m3_tensor", "mlu_int8_offset"])
def test_the_gradient_passes_unchanged(name, rand):
    x, slope = rand(128, 256).requires_grad_(), rand(128, 256)
    (fake_quantize(x, name) * slope).sum().backward()
    assert torch.equal(x.grad, slope)


def test_without_gradients_nothing_is_recorded(rand):
    x = rand(4, 64).requires_grad_()
    with torch.no_grad():
        assert not fake_quantize(x, "mxfp4").requires_grad
    assert fake_quantize(x.detach(), "mxfp4").grad_fn is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_refused(name, wrong, rand):
    x = rand(128, WIDTH)
    x[77, WIDTH - 1] = wrong
    with pytest.raises(ValueError, match="finite"):
        fake_quantize(x, name)


@pytest.mark.parametrize(
    ("x", "name", "message"),
    [
        (torch.zeros(2, 33), "mxfp4", "multiple of 32"), (torch.zeros(2, 65), "hif4", "multiple of 64"),
        (torch.zeros(2, 64), "kv_v4", "512"), (torch.zeros(2, 64).double(), "mxfp4", "float64"),
        (torch.zeros(2, 64), "mxfp5", "did you mean"), (torch.zeros(4), "fp8_e4m3_128x128", "two axes"),
    ],
)  # fmt: skip
def test_what_quantize_refuses_is_refused(x, name, message):
    with pytest.raises(ValueError, match=message):
        fake_quantize(x, name)


BUFFER = torch.zeros(5, 64)


@pytest.mark.parametrize(
    "out",
    [torch.zeros(64, 2), torch.zeros(2, 128)[:, ::2], torch.zeros(2, 64).half(), BUFFER[1:3]],
    ids=["shape", "gaps", "dtype", "overlap"],
)
def test_an_out_that_does_not_fit_is_refused(out):
    with pytest.raises(ValueError, match="fake_quantize: got out"):
        fake_quantize(BUFFER[:2], "mxfp4", out=out)


def test_out_takes_no_part_in_gradients():
    with pytest.raises(ValueError, match="without a gradient"):
        fake_quantize(torch.zeros(2, 64, requires_grad=True), "mxfp4", out=torch.zeros(2, 64))


@pytest.mark.parametrize("compiled", [False, True])
def test_out_may_be_another_part_of_the_same_memory(compiled, rand):
    buffer = rand(4, 64)
    expected = quantize(buffer[:2], "mxfp4").dequantize()
    fake_quantize(buffer[:2], "mxfp4", out=buffer[2:], compiled=compiled)
    assert_same_bits(buffer[2:], expected)
