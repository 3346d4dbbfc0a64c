"""Bytes: the official places of FP4 and int4, a stream of bits for the others, and refusals."""

import pytest
import torch

from workbench.quant import FORMATS, quantize
from workbench.quant.packing import pack_codes, packed_width, unpack_codes

# One row that every format takes: a multiple of 128, and 512 for the cache entry.
SHAPE = (2, 256)


def row(fmt, rand):
    return rand(2, 512) if fmt.startswith("kv_v4") else rand(*SHAPE)


@pytest.mark.parametrize("fmt", ["mxfp4", "mxfp4_v4", "nvfp4", "nvfp4_single", "kv_v41"])
def test_one_and_minus_three_are_the_byte_d2(fmt):
    x = torch.zeros(1, 32)
    x[0, :4] = torch.tensor([1.0, -3.0, 6.0, 0.0])
    assert quantize(x, fmt).dequantize()[0, :4].tolist() == [1, -3, 6, 0]
    assert quantize(x, "mxfp4_v4").packed()["codes"][0, :2].tolist() == [0xD2, 0x07]


def test_eight_int4_make_an_int32_the_first_lowest():
    codes = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0xF], dtype=torch.uint8)
    assert int(pack_codes(codes, 4).view(torch.int32)) == torch.tensor(0xF7654321).to(torch.int32)


@pytest.mark.parametrize("bits", [4, 6, 8, 12, 16])
def test_a_row_is_a_little_endian_stream_of_bits(bits):
    codes = torch.randint(2**bits, (3, 40), generator=torch.Generator().manual_seed(bits))
    stored = pack_codes(codes.to(torch.uint8 if bits <= 8 else torch.int32), bits)
    assert stored.shape == (3, packed_width(40, bits))
    for row_codes, row_bytes in zip(codes.tolist(), stored.tolist(), strict=True):
        stream = sum(code << bits * place for place, code in enumerate(row_codes))
        assert int.from_bytes(bytes(row_bytes), "little") == stream
    assert torch.equal(unpack_codes(stored, bits).long(), codes)


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_packed_unpacks_to_the_same_numbers(fmt, rand):
    quantized = quantize(row(fmt, rand), fmt)
    back = FORMATS[fmt].unpack(quantized.packed(), quantized.shape)
    assert torch.equal(back.dequantize(), quantized.dequantize())
    assert torch.equal(back.codes, quantized.codes)
    assert all(tensor.is_contiguous() for tensor in quantized.packed().values())


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_bytes_are_what_bits_per_value_says(fmt, rand):
    quantized = quantize(row(fmt, rand), fmt)
    for_rows = 2 * 8 + 12  # a scale and an offset a row; parameters of the tensor
    counted = FORMATS[fmt].bits_per_value * quantized.codes.numel() / 8
    assert counted <= quantized.stored_bytes <= counted + for_rows


@pytest.mark.parametrize("fmt", FORMATS)
def test_packed_tensors_of_another_length_or_type_are_refused(fmt, rand):
    quantized = quantize(row(fmt, rand), fmt)
    for role, tensor in quantized.packed().items():
        longer = quantized.packed() | {role: torch.cat((tensor[None], tensor[None]))}
        with pytest.raises(ValueError, match=rf"unpack: {fmt} got {role} torch.* needs torch"):
            FORMATS[fmt].unpack(longer, quantized.shape)
        absent = {other: value for other, value in quantized.packed().items() if other != role}
        with pytest.raises(ValueError, match=f"got {role} none"):
            FORMATS[fmt].unpack(absent, quantized.shape)
        with pytest.raises(ValueError, match=f"got {role} torch.float64"):
            FORMATS[fmt].unpack(quantized.packed() | {role: tensor.double()}, quantized.shape)


def test_rows_that_fill_no_whole_bytes_are_refused():
    with pytest.raises(ValueError, match="got rows of 3 codes; 4-bit codes need a multiple of 2"):
        pack_codes(torch.zeros(2, 3, dtype=torch.uint8), 4)
    with pytest.raises(ValueError, match="got rows of 4 bytes; 6-bit codes need a multiple of 3"):
        unpack_codes(torch.zeros(2, 4, dtype=torch.uint8), 6)
    with pytest.raises(ValueError, match=r"got torch\.int8; needs the bytes"):
        unpack_codes(torch.zeros(2, 4, dtype=torch.int8), 4)
