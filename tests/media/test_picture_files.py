import numpy as np
import pytest
import torch
from PIL import Image

from workbench.media.data import load_split, move
from workbench.media.picture_files import read_picture, read_video, write_picture, write_video
from workbench.media.tasks import MOTIONS

DIGIT = load_split().test.pixels[0]
HALF_STEP = 1 / 255  # what rounding to 256 greys may change, of a range of 2


@pytest.mark.parametrize("ending", [".png", ".jpg", ".JPEG"])
@pytest.mark.parametrize("scale", [1, 16])
def test_a_picture_comes_back(tmp_path, ending, scale):
    path = tmp_path / f"digit{ending}"
    write_picture(DIGIT, path, scale)
    assert Image.open(path).size == (8 * scale, 8 * scale)
    error = (read_picture(path, (8, 8)) - DIGIT).abs().max()
    assert error < (0.2 if ending != ".png" and scale == 1 else 2 * HALF_STEP)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_a_video_comes_back_with_every_frame(tmp_path, ending, motion):
    video, path = move(DIGIT[None], *motion)[0], tmp_path / f"film{ending}"
    write_video(video, path)
    again = read_video(path, (12, 12))
    assert again.shape == video.shape  # also where slow digits stand still in every other frame
    assert (again - video).abs().max() < (0.05 if ending == ".mp4" else 2 * HALF_STEP)


def test_grey_values_are_those_another_program_reads(tmp_path):
    write_picture(torch.tensor([[-1.0, 0.0], [0.5, 1.0]]), tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 128], [191, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_that_hold_an_opaque_white_picture_are_read_as_white(tmp_path, mode):
    Image.new("RGB", (6, 4), "white").convert(mode).save(tmp_path / "a.png")
    assert torch.equal(read_picture(tmp_path / "a.png"), torch.ones(4, 6))


@pytest.mark.parametrize(
    ("mode", "colour", "name", "says"),
    [
        ("I;16", 900, "a.png", r"mode 'I;16'.*convert it to 8 bits"),
        ("CMYK", (1, 2, 3, 4), "a.jpg", r"mode 'CMYK'"),
        ("RGBA", (255, 0, 0, 100), "a.png", r"see-through.*alpha from 100"),
        ("LA", (9, 0), "a.png", r"see-through"),
    ],
)
def test_modes_that_are_not_read_are_named(tmp_path, mode, colour, name, says):
    Image.new(mode, (8, 8), colour).save(tmp_path / name)
    with pytest.raises(ValueError, match=says):
        read_picture(tmp_path / name)


def spoilt(path, how):
    whole = path.read_bytes()
    path.write_bytes(how(whole))
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.mp4"])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_files_that_break_off_say_so(tmp_path, name, share):
    is_video = name.endswith(("gif", "mp4"))
    path = tmp_path / name
    video = move(DIGIT[None], "left", "quickly")[0]
    if is_video:
        write_video(video, path)
    else:
        write_picture(DIGIT, path, 16)
    spoilt(path, lambda whole: whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"breaks off or is damaged|no picture that can be read"):
        (read_video if is_video else read_picture)(path)


def test_a_flipped_byte_in_the_data_is_noticed(tmp_path):
    write_picture(DIGIT, tmp_path / "a.png", 16)
    path = spoilt(tmp_path / "a.png", lambda b: b[:60] + bytes([b[60] ^ 255]) + b[61:])
    with pytest.raises(ValueError, match="damaged"):
        read_picture(path)


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_files_that_are_no_pictures_are_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_picture, read_video):
        with pytest.raises(ValueError, match=r"a\.png begins with"):
            read(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is no file"):
        read_picture(tmp_path / "b.png")


def test_sizes_that_do_not_fit_are_named(tmp_path):
    Image.new("L", (8, 9)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"is 8 x 9; needs sides like 8 x 8"):
        read_picture(tmp_path / "a.png", (8, 8))
    Image.new("L", (5000, 10)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="5000 x 10; needs sides up to 4096"):
        read_picture(tmp_path / "b.png")
    Image.new("1", (20000, 20000)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="more pixels than can be meant"):
        read_picture(tmp_path / "c.png")


def test_a_video_is_no_picture(tmp_path):
    write_video(move(DIGIT[None], "up", "quickly")[0], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="5 frames"):
        read_picture(tmp_path / "a.gif")


@pytest.mark.parametrize(
    ("write", "pixels", "name", "scale", "says"),
    [
        (write_picture, DIGIT, "a.bmp", 1, "needs an ending"),
        (write_picture, DIGIT[None], "a.png", 1, r"needs \(y, x\)"),
        (write_picture, DIGIT * 255, "a.png", 1, "rescale"),
        (write_picture, DIGIT * float("nan"), "a.png", 1, "rescale"),
        (write_picture, DIGIT, "a.png", 0, "scale=0"),
        (write_video, DIGIT[None, :7], "a.mp4", 1, "even sides"),
        (write_video, DIGIT[None][:0], "a.gif", 1, "a frame or more"),
        (write_video, DIGIT[None], "a.png", 1, "needs an ending"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, write, pixels, name, scale, says):
    with pytest.raises(ValueError, match=says):
        write(pixels, tmp_path / name, scale)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_picture(DIGIT, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(image, path, **options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_picture(-DIGIT, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
