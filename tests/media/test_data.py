import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits

from workbench.media.data import DIRECTIONS, N_TEST, SPEEDS, load_split, move, photograph_crops, turned

SPLIT = load_split()


def rows(pixels):
    return {tuple(picture.flatten().tolist()) for picture in pixels}


def test_no_test_digit_is_a_training_digit_and_none_is_lost():
    train, test = rows(SPLIT.train.pixels), rows(SPLIT.test.pixels)
    assert len(SPLIT.test) == N_TEST and len(SPLIT.train) + len(SPLIT.test) == 1797
    assert not train & test


def test_pictures_and_labels_stay_together():
    # From the file itself, without our reading of it.
    known = {
        tuple((image.ravel() / 8 - 1).astype(np.float32)): digit
        for image, digit in zip(load_digits().images, load_digits().target, strict=True)
    }
    for part in (SPLIT.train, SPLIT.test):
        for picture, label in zip(part.pixels, part.labels, strict=True):
            assert known[tuple(picture.flatten().numpy())] == int(label)


def test_another_seed_holds_out_others():
    assert rows(load_split(1).test.pixels) != rows(SPLIT.test.pixels)


def test_half_of_each_class_is_bold():
    for digit in range(10):
        share = SPLIT.train.is_bold[SPLIT.train.labels == digit].float().mean()
        assert 0.45 < share < 0.51


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_frame_holds_the_whole_digit_at_the_place_a_loop_puts_it(direction, speed):
    digit = SPLIT.test.pixels[:2]
    videos = move(digit, direction, speed)
    y, x = {"left": (2, 4), "right": (2, 0), "up": (4, 2), "down": (0, 2)}[direction]
    for t in range(5):
        done = t if speed == "quickly" else t // 2
        top = y + {"up": -done, "down": done}.get(direction, 0)
        left = x + {"left": -done, "right": done}.get(direction, 0)
        empty = videos[:, t].clone()
        assert torch.equal(empty[:, top : top + 8, left : left + 8], digit)
        empty[:, top : top + 8, left : left + 8] = -1
        assert (empty == -1).all()


def test_an_unknown_direction_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"'sideways'.*left.*right"):
        move(SPLIT.test.pixels[:1], "sideways", "slowly")


def test_each_picture_is_turned_on_its_own_as_scipy_turns_it():
    pixels = SPLIT.test.pixels[:7]
    found = turned(pixels, torch.Generator().manual_seed(5))
    angles, right, down = (torch.rand(3, 7, generator=torch.Generator().manual_seed(5)) * 2 - 1).numpy()
    for picture, one, angle, dx, dy in zip(pixels, found, np.radians(12) * angles, right, down, strict=True):
        way = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = np.array([3.5, 3.5])
        expected = affine_transform(
            picture.numpy() + 1, way, middle - way @ middle + [dy, dx], order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(one.numpy() + 1, expected, atol=1e-5)
    # Ink that leaves at the border apart, a picture weighs what it did.
    ink = (turned(SPLIT.test.pixels, torch.Generator().manual_seed(0)) - SPLIT.test.pixels).mean(dim=(1, 2))
    assert ink.abs().median() < 0.04


def test_crops_are_of_the_photographs_and_the_seed_chooses_them():
    crops = photograph_crops(20, 12, seed=3)
    assert crops.shape == (20, 12, 12)
    assert -1 <= crops.min() < crops.max() <= 1 and crops.std(dim=(1, 2)).median() > 0.03
    assert torch.equal(crops, photograph_crops(20, 12, seed=3))
    assert not torch.equal(crops, photograph_crops(20, 12, seed=4))
