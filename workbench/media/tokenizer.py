"""Pictures and videos as codes: one network for both, causal in time, so a picture is a one-frame video.

    frames  1 + 2k  --encode-->  latent frames  1 + k,  each (y / 2, x / 2) codes

Latent frame j depends on frames 0 ... 2j alone. So the codes of a video begin with those of its first frame
as a picture, and a video can be decoded as it is written. (MAGVIT-v2 and Cosmos have this form.)

Axes: b videos, c channels, t frames, y and x places, d channels of a code.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from workbench.media.quantisers import FSQ, VQ, Quantised

LEVELS = (8, 6, 5)  # 240 codes: they fit into the 415 ids that V4's tokenizer reserves for other media
STRIDE = 2  # in time and in space


class CausalConv(nn.Conv3d):
    """A convolution over (t, y, x) that sees no later frame: time is padded with zeros on the left only."""

    def __init__(
        self, channels_in: int, channels_out: int, t: int, side: int, *, stride: tuple[int, int] = (1, 1)
    ):
        steps = (stride[0], stride[1], stride[1])
        super().__init__(channels_in, channels_out, (t, side, side), steps, padding=(0, side // 2, side // 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 0, 0, 0, self.kernel_size[0] - 1, 0)))


class Residual(nn.Module):
    """x + conv(silu(x)), conv over 3 frames of 3 x 3 places."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = CausalConv(channels, channels, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv(F.silu(x))
        return y


class MediaTokenizer(nn.Module):
    """Encoder, quantiser and decoder.

    Args:
        quantiser: FSQ of `LEVELS` if None.
        width: channels of the convolutions.
    """

    def __init__(self, quantiser: FSQ | VQ | None = None, width: int = 32):
        super().__init__()
        self.quantiser = FSQ(LEVELS) if quantiser is None else quantiser
        d = self.quantiser.dim
        self.encoder = nn.Sequential(
            CausalConv(1, width, 1, 3, stride=(1, STRIDE)),
            Residual(width),
            CausalConv(width, width, 3, 3, stride=(STRIDE, 1)),
            Residual(width),
            nn.SiLU(),
            CausalConv(width, d, 1, 1),
        )
        self.before = nn.Sequential(CausalConv(d, width, 1, 3), Residual(width))
        self.in_time = CausalConv(width, STRIDE * width, 3, 1)
        self.after = nn.Sequential(
            Residual(width), Residual(width), nn.SiLU(), CausalConv(width, STRIDE**2, 1, 3)
        )

    def quantise(self, frames: Tensor) -> Quantised:
        """Codes with their values, for training: (b, t, y, x) -> (b, t', y', x', d) and (b, t', y', x')."""
        latent = self.encoder(frames[:, None])
        found: Quantised = self.quantiser(rearrange(latent, "b d t y x -> b t y x d"))
        return found

    def decode_values(self, values: Tensor) -> Tensor:
        """Frames from the values of codes: (b, t', y', x', d) -> (b, t, y, x), t = 2t' - 1."""
        x = self.before(rearrange(values, "b t y x d -> b d t y x"))
        x = rearrange(self.in_time(F.silu(x)), "b (k c) t y x -> b c (t k) y x", k=STRIDE)
        # The first latent frame is one frame, not two: of its pair the second is kept.
        x = self.after(x[:, :, 1:])
        return rearrange(x, "b (p q) t y x -> b t (y p) (x q)", p=STRIDE, q=STRIDE)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Codes of videos: (b, t, y, x) in [-1, 1] -> ids (b, (t + 1) / 2, y / 2, x / 2).

        A picture is a video of one frame.

        Raises:
            ValueError: an even number of frames, odd sides, or values outside [-1, 1].
        """
        if (
            frames.ndim != 4
            or frames.shape[1] % 2 != 1
            or frames.shape[2] % STRIDE
            or frames.shape[3] % STRIDE
        ):
            raise ValueError(
                f"MediaTokenizer.encode: got {tuple(frames.shape)}; needs (b, t, y, x) with an odd number of "
                f"frames and even sides; leave out a frame or pad the sides"
            )
        if frames.numel() and float(frames.abs().max()) > 1 + 1e-3:
            raise ValueError(
                f"MediaTokenizer.encode: got values from {float(frames.min()):.2f} to "
                f"{float(frames.max()):.2f}; needs -1 (black) to 1 (white); rescale them"
            )
        return self.quantise(frames).ids

    @torch.no_grad()
    def decode(self, ids: Tensor) -> Tensor:
        """Frames of codes, clipped to [-1, 1]: (b, t', y', x') -> (b, 2t' - 1, 2y', 2x')."""
        return self.decode_values(self.quantiser.values(ids)).clamp(-1, 1)
