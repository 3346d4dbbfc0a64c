"""Pictures and videos in files that other programs read: PNG, JPEG, GIF and MP4, in and out.

Grey values from 0 to 255 are -1 (black) to 1 (white) here. PNG and GIF keep every one of them; JPEG and MP4
lose some. Formats are told by the file's ending when writing, and by its content when reading.

Axes: t frames, y and x pixels.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

PICTURES = (".png", ".jpg", ".jpeg")
VIDEOS = (".gif", ".mp4")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # of Pillow, 8 bits a channel or fewer
LARGEST_SIDE = 4096
FRAME_MS = 350

Size = tuple[int, int]


def read_picture(path: str | Path, size: Size | None = None) -> Tensor:
    """A picture as grey values in [-1, 1]: (y, x), of its own size or brought to `size` (rows, columns).

    Bringing it to a size averages areas, so an enlarged 8 x 8 digit comes back as it was; sides must then be
    in the same ratio, for nothing is stretched or cut.

    Raises:
        ValueError: no such file, one that is damaged, cut off or no picture, several frames, a mode with more
            than 8 bits or another colour space, see-through pixels, sides that are too long or do not fit.
    """
    with _opened("read_picture", path) as image:
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1:
            raise ValueError(
                f"read_picture: {path} holds {n_frames} frames; needs one; read it with read_video"
            )
        return _to_pixels("read_picture", path, image, size)


def read_video(path: str | Path, size: Size | None = None) -> Tensor:
    """The frames of a GIF or MP4 as grey values in [-1, 1]: (t, y, x); `size` as in `read_picture`.

    A GIF stores equal neighbours as one frame that lasts longer: it is given as often as it outlasts the
    shortest.

    Raises:
        ValueError: as `read_picture`, or no frame at all.
    """
    with _checked("read_video", path).open("rb") as file:
        is_mp4 = file.read(12)[4:8] == b"ftyp"
    if is_mp4:
        with _explained("read_video", path, "MP4"):
            frames = imageio.imread(path, plugin="FFMPEG")
        images = [Image.fromarray(frame) for frame in frames]
        counts = [1] * len(images)
    else:
        with _opened("read_video", path) as image, _explained("read_video", path, "picture"):
            images = [frame.copy() for frame in ImageSequence.Iterator(image)]
            lasts = [max(int(frame.info.get("duration", 0)), 1) for frame in images]
        counts = [round(ms / min(lasts)) for ms in lasts]
    pixels = torch.stack([_to_pixels("read_video", path, image, size) for image in images])
    return pixels.repeat_interleave(torch.tensor(counts), dim=0)


def write_picture(pixels: Tensor, path: str | Path, scale: int = 1) -> None:
    """Write (y, x) in [-1, 1] as PNG or JPEG, every pixel `scale` pixels wide and high; whole or not at all.

    Raises:
        ValueError: another ending, another shape, or values outside [-1, 1].
    """
    if pixels.ndim != 2:
        raise ValueError(
            f"write_picture: got {tuple(pixels.shape)}; needs (y, x); take one frame, or write_video"
        )
    grey = _to_grey("write_picture", pixels[None], path, PICTURES, scale)[0]
    # PNG knows no quality and leaves it unread.
    _write(Path(path), lambda scratch: Image.fromarray(grey).save(scratch, quality=95))


def write_video(frames: Tensor, path: str | Path, scale: int = 16, frame_ms: int = FRAME_MS) -> None:
    """Write (t, y, x) in [-1, 1] as GIF or MP4, every pixel `scale` pixels wide and high.

    Raises:
        ValueError: as `write_picture`; an MP4 whose sides are odd.
    """
    if frames.ndim != 3 or not len(frames):
        raise ValueError(
            f"write_video: got {tuple(frames.shape)}; needs (t, y, x) with a frame or more; add that axis"
        )
    grey = _to_grey("write_video", frames, path, VIDEOS, scale)
    if Path(path).suffix.lower() == ".gif":
        first, *others = (Image.fromarray(frame) for frame in grey)
        return _write(
            Path(path),
            lambda scratch: first.save(
                scratch, save_all=True, append_images=others, duration=frame_ms, loop=0
            ),
        )
    if grey.shape[1] % 2 or grey.shape[2] % 2:
        raise ValueError(
            f"write_video: got frames of {grey.shape[1]} x {grey.shape[2]} pixels; needs even sides for MP4; "
            f"double the scale, or write a GIF"
        )
    colour = repeat(grey, "t y x -> t y x c", c=3)
    return _write(
        Path(path),
        lambda scratch: imageio.imwrite(
            scratch, colour, plugin="FFMPEG", fps=1000 / frame_ms, macro_block_size=2, quality=9
        ),
    )


def _checked(name: str, path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{name}: {path} is no file; needs a picture or video; check the path")
    return path


@contextmanager
def _explained(name: str, path: str | Path, what: str) -> Iterator[None]:
    """What a decoder says of a damaged file, as one error of ours."""
    try:
        yield
    except (OSError, RuntimeError, SyntaxError, EOFError, IndexError, StopIteration) as error:
        said = str(error).splitlines() or ["no frame"]
        raise ValueError(
            f"{name}: {path} breaks off or is damaged ({said[0][:80]}); needs a whole {what}; copy or export "
            f"it again"
        ) from error


@contextmanager
def _opened(name: str, path: str | Path) -> Iterator[Image.Image]:
    path = _checked(name, path)
    try:
        with _explained(name, path, "picture"):
            image = _open(name, path)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: {path} claims more pixels than can be meant ({error}); needs sides up to "
            f"{LARGEST_SIDE}; make it smaller"
        ) from error
    with image:
        yield image


def _open(name: str, path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name}: {path} begins with {path.read_bytes()[:8]!r}, which is no picture that can be read "
            f"here; needs {', '.join((*PICTURES, *VIDEOS))}; convert it"
        ) from error


def _to_pixels(name: str, path: str | Path, image: Image.Image, size: Size | None) -> Tensor:
    if max(image.size) > LARGEST_SIDE:
        raise ValueError(
            f"{name}: {path} is {image.width} x {image.height}; needs sides up to {LARGEST_SIDE}; "
            f"make it smaller"
        )
    if image.mode not in MODES:
        raise ValueError(
            f"{name}: {path} has mode {image.mode!r}; needs one of {list(MODES)}; convert it to 8 bits of "
            f"grey or RGB"
        )
    with _explained(name, path, "picture"):
        image.load()
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A").getextrema()
        if alpha[0] != 255:
            raise ValueError(
                f"{name}: {path} has see-through pixels (alpha from {alpha[0]} to {alpha[1]}); needs opaque "
                f"ones; put it on a background first"
            )
        image = image.convert("RGB")
    grey = image.convert("L")
    if size is not None:
        rows, columns = size
        if image.width * rows != image.height * columns:
            raise ValueError(
                f"{name}: {path} is {image.width} x {image.height}; needs sides like {columns} x {rows}; cut "
                f"or pad it to that ratio"
            )
        grey = grey.resize((columns, rows), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(grey, dtype=np.float32) / 127.5 - 1)


def _to_grey(
    name: str, frames: Tensor, path: str | Path, endings: tuple[str, ...], scale: int
) -> NDArray[np.uint8]:
    if Path(path).suffix.lower() not in endings:
        raise ValueError(f"{name}: got {path}; needs an ending of {list(endings)}; choose one of those")
    if scale < 1:
        raise ValueError(f"{name}: got scale={scale}; needs 1 or more; 16 makes small digits visible")
    if not bool((frames.abs() <= 1 + 1e-3).all()):
        raise ValueError(
            f"{name}: got values from {float(frames.min()):.2f} to {float(frames.max()):.2f}; needs -1 "
            f"(black) to 1 (white); rescale them"
        )
    grey = ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    return np.asarray(rearrange(np.stack([[grey] * scale] * scale), "a b t y x -> t (y a) (x b)"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Through a file beside it that is renamed when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{uuid.uuid4().hex[:8]}{path.suffix.lower()}")
    try:
        write(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
