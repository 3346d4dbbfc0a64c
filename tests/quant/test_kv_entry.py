"""V4's 584-byte cache entry, byte by byte, and V4.1's FP4 entry."""

import struct

import ml_dtypes
import numpy as np
import pytest
import torch

from tests.oracles.number_formats import GRIDS, nearest, signed
from workbench.quant import FORMATS, quantize


def test_the_record_is_written_byte_by_byte_as_documented(rand):
    x = rand(3, 512) * 5
    x[1, 64:128] = 0
    records = quantize(x, "kv_v4").packed()["record"].numpy()
    assert records.shape == (3, 584)
    for entry, record in zip(x.numpy(), records, strict=True):
        expected = bytearray(584)
        for tile in range(7):
            part = entry[64 * tile : 64 * tile + 64]
            amax = max(float(np.abs(part).max()), float(np.float32(1e-4)))
            exponent = 0
            while 448 * 2.0**exponent < amax:
                exponent += 1
            while 448 * 2.0 ** (exponent - 1) >= amax:
                exponent -= 1
            expected[576 + tile] = exponent + 127
            scaled = (part.astype(np.float64) / 2.0**exponent).astype(np.float32)
            expected[64 * tile : 64 * tile + 64] = scaled.astype(ml_dtypes.float8_e4m3fn).tobytes()
        rotary = entry[448:].astype(ml_dtypes.bfloat16).view(np.uint16)
        expected[448:576] = struct.pack("<64H", *rotary)
        assert bytes(record) == bytes(expected)


def test_an_entry_reads_back_as_fp8_tiles_and_bf16(rand):
    x = rand(2, 3, 512)
    quantized = quantize(x, "kv_v4")
    y = quantized.dequantize()
    assert torch.equal(y[..., 448:], x[..., 448:].bfloat16().float())
    assert torch.equal(y[..., :448], quantize(x[..., :448], "fp8_e4m3_1x64_ue8m0").dequantize())
    assert quantized.block_scales().shape == (2, 3, 7)
    assert FORMATS["kv_v4"].bits_per_value == 584 * 8 / 512


def test_entries_of_other_widths_are_refused(rand):
    with pytest.raises(ValueError, match="got entries of 448 channels; it needs 512"):
        quantize(rand(2, 448), "kv_v4")
    with pytest.raises(ValueError, match=r"got record torch.uint8 \(2, 580\); needs torch.uint8 \(2, 584\)"):
        FORMATS["kv_v4"].unpack({"record": torch.zeros(2, 580, dtype=torch.uint8)}, (2, 512))


@pytest.mark.parametrize("channel", [70, 500])
def test_a_special_number_is_refused_or_kept_to_its_tile_or_channel(channel, rand):
    x = rand(2, 512)
    x[1, channel] = torch.nan
    with pytest.raises(ValueError, match="got 1 NaN and 0 infinite"):
        quantize(x, "kv_v4")
    is_nan = quantize(x, "kv_v4", specials="propagate").dequantize().isnan()
    expected = range(64, 128) if channel == 70 else [500]
    assert is_nan.nonzero().tolist() == [[1, place] for place in expected]


def test_an_indexer_key_takes_68_bytes(rand):
    assert quantize(rand(1, 128), "mxfp4_v4").stored_bytes == 68


def test_v41s_compressed_entries_are_fp4_under_e4m3_scales_and_no_other(rand):
    x = rand(4, 48) * torch.tensor([[1.0], [1e-4], [0.0], [3000.0]])
    quantized = quantize(x, "kv_v41")
    assert quantized.tensor_scale is None
    for o in range(4):
        for c in range(3):
            block = x[o, 16 * c : 16 * c + 16]
            amax = max(np.float32(block.abs().max()), np.float32(6 * 2.0**-9))
            scale = np.float32(float(nearest(amax / np.float32(6), GRIDS["ue4m3"])))
            assert quantized.block_scales()[o, c] == float(scale)
            values = [np.float32(signed(np.float32(v) / scale, GRIDS["e2m1"])) * scale for v in block]
            assert quantized.dequantize()[o, 16 * c : 16 * c + 16].tolist() == [float(v) for v in values]
    assert (quantized.block_scales()[2] == 2.0**-9).all()
