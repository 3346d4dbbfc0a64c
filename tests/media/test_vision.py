import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from workbench.media.vision import (
    MAX_TOKENS,
    PATCH,
    PictureSize,
    VisionEncoder,
    patches,
    picture_size,
    published_encoder,
    rotate,
    rotation_angles,
)


# Sizes, patch grids, token grids and tokens of the release's image processor, worked out by hand.
@pytest.mark.parametrize(
    ("given_size", "resized", "patch_grid", "token_grid", "n_tokens"),
    [
        ((448, 336), (630, 476), (34, 45), (12, 15), 194),
        ((640, 480), (644, 490), (35, 46), (12, 16), 206),
        ((800, 800), (812, 812), (58, 58), (20, 20), 422),
        ((1920, 1080), (1708, 966), (69, 122), (23, 41), 968),
        ((1344, 1344), (1302, 1302), (93, 93), (31, 31), 994),
        ((4000, 4000), (1302, 1302), (93, 93), (31, 31), 994),
    ],
)
def test_sizes_are_those_of_the_release(given_size, resized, patch_grid, token_grid, n_tokens):
    size = picture_size(*given_size)
    assert (size.width, size.height) == resized
    assert (size.patch_grid, size.token_grid, size.n_tokens) == (patch_grid, token_grid, n_tokens)


def test_the_published_arithmetic_of_compression():
    size = PictureSize(756, 756)
    rows, columns = size.patch_grid
    token_rows, token_columns = size.token_grid
    assert (rows * columns, token_rows * token_columns, size.entries(4)) == (2916, 324, 81)
    assert 756 * 756 / size.entries(4) == 7056


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000))
def test_every_picture_fits_the_budget_in_whole_patches(width, height):
    if max(width, height) / min(width, height) > 500:
        return
    size = picture_size(width, height)
    assert size.width % PATCH == size.height % PATCH == 0 < min(size.width, size.height)
    assert size.n_tokens <= MAX_TOKENS


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="0 x 5"):
        picture_size(0, 5)


def test_the_rotation_is_transformers_own(rand):
    rows, columns, channels = 3, 5, 16
    q, k = rand(2, rows * columns, channels), rand(2, rows * columns, channels)
    angles = torch.zeros(rows * columns, channels // 2)
    for p in range(rows * columns):
        for i in range(channels // 4):
            f = 10000 ** (-2 * i / (channels // 2))
            angles[p, i], angles[p, channels // 4 + i] = p // columns * f, p % columns * f
    twice = torch.cat([angles, angles], dim=1)
    theirs = apply_rotary_pos_emb_vision(q.transpose(0, 1), k.transpose(0, 1), twice.cos(), twice.sin())
    ours = rotation_angles(rows, columns, channels)
    torch.testing.assert_close(rotate(q, ours), theirs[0].transpose(0, 1))
    torch.testing.assert_close(rotate(k, ours), theirs[1].transpose(0, 1))


def test_patches_are_channel_first_and_row_by_row(rand):
    picture = rand(3, 4, 6)
    found = patches(picture, 2)
    assert found.shape == (6, 12)
    for index in range(6):
        y, x = index // 3 * 2, index % 3 * 2
        assert torch.equal(found[index], picture[:, y : y + 2, x : x + 2].flatten())
    assert torch.equal(found, F.unfold(picture[None], 2, stride=2)[0].T)


def small(merge=3):
    torch.manual_seed(0)
    return VisionEncoder(
        patch_values=12, width=16, heads=2, intermediate=24, blocks=2, hidden_size=10, merge=merge
    )


@pytest.mark.parametrize(("grid", "tokens"), [((3, 6), 2), ((4, 5), 4), ((1, 1), 1)])
def test_any_grid_becomes_its_tokens(rand, grid, tokens):
    assert small()(rand(grid[0] * grid[1], 12), grid).shape == (tokens, 10)


def test_every_token_sees_the_whole_picture(rand):
    encoder, x = small(merge=1), rand(12, 12)
    changed = x.clone()
    changed[11] += 1
    gap = (encoder(x, (3, 4)) - encoder(changed, (3, 4))).abs().amax(dim=1)
    assert (gap > 0).all()


def test_parameters_are_the_published_ones():
    counts = {
        part: sum(
            p.numel() for name, p in published_encoder().named_parameters() if ("projector" in name) == is_p
        )
        for part, is_p in (("encoder", False), ("projector", True))
    }
    assert counts == {"encoder": 411_842_560, "projector": 73_410_560}
