import numpy as np
import pytest
import scipy.linalg
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.registration import phase_cross_correlation

from workbench.media import measures
from workbench.media.data import DIRECTIONS, SPEEDS, load_split, move
from workbench.media.judge import train_judge
from workbench.media.motion import centres, directions, phase_shift, speed_errors, steadiness

PICTURES = load_split().test


def pairs(rand, shape=(3, 11, 9)):
    truth = rand(*shape).clamp(-1, 1)
    return (truth + 0.2 * rand(*shape)).clamp(-1, 1), truth


def test_psnr_is_scikit_images(rand):
    ours, truth = pairs(rand)
    expected = [
        peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=2) for a, b in zip(ours, truth, strict=True)
    ]
    np.testing.assert_allclose(measures.psnr(ours, truth), expected, rtol=1e-5)


@pytest.mark.parametrize("window", [3, 7])
def test_ssim_is_scikit_images(rand, window):
    ours, truth = pairs(rand)
    expected = [
        structural_similarity(a.double().numpy(), b.double().numpy(), data_range=2, win_size=window)
        for a, b in zip(ours, truth, strict=True)
    ]
    np.testing.assert_allclose(measures.ssim(ours, truth, window), expected, rtol=1e-6)


def test_ssim_refuses_pictures_smaller_than_its_window(rand):
    with pytest.raises(ValueError, match="smaller"):
        measures.ssim(rand(1, 5, 5), rand(1, 5, 5))


def test_frechet_distance_is_the_written_formula(rand):
    a, b = rand(50, 4).double(), 1 + rand(40, 4).double() @ rand(4, 4).double()
    c1, c2 = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    gap = a.mean(0).numpy() - b.mean(0).numpy()
    assert measures.frechet_distance(a, b) == pytest.approx(
        gap @ gap + np.trace(c1 + c2 - 2 * root), rel=1e-6
    )


def test_frechet_distance_of_a_set_to_itself_is_nothing(rand):
    a = rand(50, 4)
    assert abs(measures.frechet_distance(a, a)) < 1e-9


def test_the_correction_takes_away_what_small_samples_add(rand):
    # Two samples of one distribution: the true distance is 0, the plain one is far from it.
    plain, corrected = [], []
    for seed in range(8):
        a, b = rand(200, 8), rand(200, 8)
        plain.append(measures.frechet_distance(a, b))
        corrected.append(measures.frechet_corrected(a, b, torch.Generator().manual_seed(seed)))
    assert np.mean(plain) > 0.1
    assert abs(np.mean(corrected)) < 0.3 * np.mean(plain)


def test_the_correction_finds_a_distance_that_is_there(rand):
    # Means 1 apart in one of 4 features, equal covariances: the distance is 1.
    shift = torch.tensor([1.0, 0, 0, 0])
    found = measures.frechet_corrected(rand(3000, 4), rand(3000, 4) + shift, torch.Generator().manual_seed(0))
    assert found == pytest.approx(1, abs=0.1)


def test_the_correction_refuses_sets_too_small_for_a_line(rand):
    with pytest.raises(ValueError, match="24 rows"):
        measures.frechet_corrected(rand(20, 8), rand(20, 8), torch.Generator())


def test_nearest_distance_is_that_of_a_loop(rand):
    ours, known = rand(3, 2, 2), rand(5, 2, 2)
    expected = [min(float(((a - b) ** 2).mean() ** 0.5) for b in known) for a in ours]
    np.testing.assert_allclose(measures.nearest_distances(ours, known), expected, rtol=1e-4)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_known_motion_is_measured_as_it_is(direction, speed):
    videos = move(PICTURES.pixels[:50], direction, speed)
    assert directions(videos) == [direction] * 50
    moved = centres(videos)[:, -1] - centres(videos)[:, 0]
    expected = torch.tensor(DIRECTIONS[direction]) * 4 * SPEEDS[speed]
    torch.testing.assert_close(moved, expected.expand(50, 2), atol=1e-4, rtol=0)
    assert (phase_shift(videos[:, 0], videos[:, -1]) == expected).all()
    assert steadiness(videos).min() > 0.999
    assert speed_errors(videos, videos).max() == 0


def test_a_slow_video_is_half_a_pixel_a_frame_from_a_quick_one():
    slow, quick = (move(PICTURES.pixels[:9], "down", speed) for speed in SPEEDS)
    # Steps 0, 1, 0, 1 against 1, 1, 1, 1.
    torch.testing.assert_close(speed_errors(slow, quick), torch.full((9,), 0.5), atol=1e-4, rtol=0)


def test_phase_shift_is_scikit_images(rand):
    before = rand(4, 9, 12)
    after = torch.stack(
        [x.roll((dy, dx), (0, 1)) for x, dy, dx in zip(before, (0, 1, -3, 4), (2, -5, 0, 1), strict=True)]
    )
    ours = phase_shift(before, after)
    for index in range(4):
        theirs = phase_cross_correlation(after[index].numpy(), before[index].numpy())[0]
        assert ours[index].tolist() == theirs.tolist()


def test_a_flickering_video_is_not_steady(rand):
    assert steadiness(rand(4, 5, 12, 12)).max() < 0.5


def test_the_judge_reads_digits_it_never_saw_and_not_noise(rand):
    judge = train_judge(load_split().train, seed=0, width=24, steps=600)
    assert judge.accuracy(PICTURES.pixels, PICTURES.labels) > 0.93
    assert judge.accuracy(rand(360, 8, 8).clamp(-1, 1), PICTURES.labels) < 0.25
