"""How V4.1 and V4-Flash-Vision see a picture: sizes, patches, encoder, projector, span of tokens.

    pixels -> patches of 14 x 14 -> encoder with 2-D RoPE -> 3 x 3 -> projector -> tokens -> CSA entries

The published path, as code at any size. Reading by drawing codes is the other way (see `tasks.read`).

Axes: p patches, r patch rows, k patch columns, h heads, c channels of a head, d width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from workbench.model.norms import RMSNorm

PATCH = 14
MERGE = 3
MIN_PIXELS = 544 * 544
MAX_TOKENS = 1024
THETA = 10000.0


@dataclass(frozen=True)
class PictureSize:
    """What a picture of some size becomes. All derived from the size that it is brought to."""

    width: int
    height: int

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.height // PATCH, self.width // PATCH

    @property
    def token_grid(self) -> tuple[int, int]:
        rows, columns = self.patch_grid
        return -(-rows // MERGE), -(-columns // MERGE)

    @property
    def n_tokens(self) -> int:
        """Tokens in the prompt: a newline after each row, begin and end."""
        rows, columns = self.token_grid
        return rows * (columns + 1) + 2

    def entries(self, ratio: int = 4) -> int:
        """CSA entries of its picture tokens alone (CSA is compressed sparse attention)."""
        rows, columns = self.token_grid
        return rows * columns // ratio


def picture_size(width: int, height: int) -> PictureSize:
    """The size that V4.1 brings a picture to: enlarged to 544² pixels, whole patches, 1,024 tokens at most.

    Source: DeepSeek-V4.1-Flash, inference code (image processor).
    Raises:
        ValueError: a side below one pixel, or one so long that a patch row is left of the other.
    """
    if min(width, height) < 1:
        raise ValueError(
            f"picture_size: got {width} x {height}; needs sides of a pixel or more; check the file"
        )
    if width * height < MIN_PIXELS:
        grow = math.sqrt(MIN_PIXELS / (width * height))
        width, height = int(width * grow), int(height * grow)
    size = PictureSize(_up(width), _up(height))
    if size.n_tokens <= MAX_TOKENS:
        return size
    # n_h (n_w + 1) + 2 tokens with n_h = r n_w: the n_w that uses the budget up.
    ratio = size.height / size.width
    columns = math.sqrt((MAX_TOKENS - 2) / ratio + 0.25) - 0.5
    rows = ratio * columns
    if min(rows, columns) < 1:
        raise ValueError(
            f"picture_size: got {width} x {height}, narrower than a token beside its length; needs sides in "
            f"a ratio below {MAX_TOKENS - 2}; cut it up"
        )
    cell = PATCH * MERGE
    shrink = min(int(columns) * cell / size.width, int(rows) * cell / size.height)
    return PictureSize(int(size.width * shrink) // PATCH * PATCH, int(size.height * shrink) // PATCH * PATCH)


def _up(side: int) -> int:
    return -(-side // PATCH) * PATCH


def patches(pixels: Tensor, side: int) -> Tensor:
    """Patches row by row, each flattened channel first: (..., c, y, x) -> (..., p, c · side²)."""
    return rearrange(pixels, "... c (r a) (k b) -> ... (r k) (c a b)", a=side, b=side)


def rotation_angles(rows: int, columns: int, channels: int) -> Tensor:
    """Angles of 2-D RoPE: half the pairs turn with the row, half with the column. -> (p, channels / 2)."""
    frequencies = THETA ** (-torch.arange(0, channels // 2, 2) / (channels // 2))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], dim=1)
    return rearrange(places[..., None] * frequencies, "p n f -> p (n f)")


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (i, i + c/2): (..., p, c), (p, c/2) -> (..., p, c)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class VisionBlock(nn.Module):
    """Two-way attention and a SwiGLU, both after RMSNorm."""

    def __init__(self, width: int, heads: int, intermediate: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width, 1e-6), RMSNorm(width, 1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate_up = nn.Linear(width, 2 * intermediate, bias=False)
        self.down = nn.Linear(intermediate, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(x)), "... p (n h c) -> n ... h p c", n=3, h=self.heads)
        y = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v)
        x = x + self.out(rearrange(y, "... h p c -> ... p (h c)"))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(F.silu(gate) * up)
        return out


class VisionEncoder(nn.Module):
    """DeepSeek-ViT with its projector: patches of a picture -> tokens of the language model.

    Shapes: patches (..., p, channels · side²) with their grid (rows, columns) -> (..., tokens, hidden_size);
    leading axes are pictures of one size.
    Source: DeepSeek-V4.1-Flash: 32 blocks of width 1024, 16 heads, SwiGLU of 2816, merge 3.
    """

    def __init__(
        self,
        *,
        patch_values: int,
        width: int,
        heads: int,
        intermediate: int,
        blocks: int,
        hidden_size: int,
        merge: int = MERGE,
    ):
        super().__init__()
        self.merge, self.channels = merge, width // heads
        self.embed = nn.Linear(patch_values, width)
        self.blocks = nn.ModuleList(VisionBlock(width, heads, intermediate) for _ in range(blocks))
        self.norm = RMSNorm(width, 1e-6)
        self.projector = nn.Sequential(
            nn.Linear(width * merge**2, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        rows, columns = grid
        angles = rotation_angles(rows, columns, self.channels)
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, angles)
        x = rearrange(self.norm(x), "... (r k) d -> ... d r k", r=rows)
        x = F.pad(x, (0, -columns % self.merge, 0, -rows % self.merge))
        x = rearrange(F.pixel_unshuffle(x, self.merge), "... d r k -> ... (r k) d")
        tokens: Tensor = self.projector(x)
        return tokens


def published_encoder() -> VisionEncoder:
    """V4.1's encoder without memory for its weights: for counting."""
    with torch.device("meta"):
        return VisionEncoder(
            patch_values=3 * PATCH**2, width=1024, heads=16, intermediate=2816, blocks=32, hidden_size=5120
        )
