"""V4's stored weights: random bytes decoded by a loop over the published layout."""

import ml_dtypes
import numpy as np
import pytest
import torch

from workbench.quant.formats import V4_EXPERT, V4_WEIGHT


def decoded_by_hand(codes, scales, is_fp4):
    """Two nested loops over the numbers of a matrix, from the layout's description."""
    rows, columns = codes.shape[0], codes.shape[1] * (2 if is_fp4 else 1)
    out = np.zeros((rows, columns))
    for o in range(rows):
        for i in range(columns):
            if is_fp4:
                byte = int(codes[o, i // 2])
                nibble = byte >> 4 if i % 2 else byte & 0xF
                value = [0, 0.5, 1, 1.5, 2, 3, 4, 6][nibble % 8] * (-1 if nibble > 7 else 1)
                exponent = int(scales[o, i // 32]) - 127
            else:
                value = float(np.uint8(codes[o, i]).view(ml_dtypes.float8_e4m3fn))
                exponent = int(scales[o // 128, i // 128]) - 127
            out[o, i] = value * 2.0**exponent
    return torch.from_numpy(out).float()


@pytest.mark.parametrize(
    ("fmt", "rows", "columns"),
    [(V4_WEIGHT, 3, 5), (V4_WEIGHT, 130, 257), (V4_WEIGHT, 128, 128), (V4_EXPERT, 3, 64)],
)
def test_blocks_decode_as_a_loop_over_their_numbers(fmt, rows, columns):
    generator = torch.Generator().manual_seed(rows)
    shape = (rows, columns)
    codes = torch.randint(0, 255, fmt.code_shape(shape), generator=generator, dtype=torch.uint8)
    if fmt is V4_WEIGHT:
        codes[codes == 0x7F] = 0  # NaN
    scales = torch.randint(90, 160, fmt.scale_shape(shape), generator=generator, dtype=torch.uint8)
    expected = decoded_by_hand(codes.numpy(), scales.numpy(), fmt.is_packed)
    unpacked = fmt.unpack({"codes": codes, "scales": scales}, fmt.shape_of(codes))
    assert torch.equal(unpacked.dequantize(), expected)
    assert torch.equal(unpacked.packed()["codes"], codes)


def test_a_nan_scale_makes_its_block_nan():
    codes, scales = (
        torch.full((1, 32), 0x22, dtype=torch.uint8),
        torch.tensor([[127, 255]], dtype=torch.uint8),
    )
    numbers = V4_EXPERT.unpack({"codes": codes, "scales": scales}, (1, 64)).dequantize()
    assert (numbers[0, :32] == 1).all() and numbers[0, 32:].isnan().all()


def test_scales_of_another_tensor_are_refused():
    parts = {
        "codes": torch.zeros(130, 128, dtype=torch.uint8),
        "scales": torch.zeros(1, 2, dtype=torch.uint8),
    }
    with pytest.raises(ValueError, match=r"got scales torch.uint8 \(1, 2\); needs torch.uint8 \(2, 1\)"):
        V4_WEIGHT.unpack(parts, (130, 128))
