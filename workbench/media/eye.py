"""Reading the other way: V4.1's vision path, small and trained, before a backbone that stays as it is.

    pixels -> patches of 2 x 2 -> encoder with 2-D RoPE -> 2 x 2 -> projector -> START (row NEWLINE)* END

The span takes the place of embeddings in the prompt, as V4.1's does, where `tasks.read` has codes. Only the
eye learns: what it gives must be read by the same weights that draw.

Axes: b pictures, y and x pixels, k positions of a span, d hidden_size.
"""

from collections.abc import Iterator

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from workbench.media.data import Pictures
from workbench.media.model import MediaModel
from workbench.media.tasks import name_words
from workbench.media.vision import VisionEncoder, patches
from workbench.media.vocabulary import WORDS
from workbench.model.loss import IGNORED

SIDE = 2  # of a patch, in pixels
MERGE = 2
ROWS = 32


class Eye(nn.Module):
    """Pictures to spans of vectors that a backbone reads: (b, y, x) -> (b, k, d).

    k is n_h (n_w + 1) + 2 for n_h rows of n_w tokens: a newline after each row, a start and an end.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.encoder = VisionEncoder(
            patch_values=SIDE**2, width=64, heads=4, intermediate=128, blocks=2,
            hidden_size=hidden_size, merge=MERGE,
        )  # fmt: skip
        self.marks = nn.Parameter(torch.randn(3, hidden_size) * 0.02)  # start, newline, end

    @staticmethod
    def fresh(model: MediaModel, seed: int) -> "Eye":
        """For this model, with first weights that the seed draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Eye(model.v4.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        rows, columns = (side // SIDE for side in pixels.shape[1:])
        tokens = self.encoder(patches(pixels[:, None], SIDE), (rows, columns))
        start, newline, end = (
            repeat(mark, "d -> b n d", b=len(pixels), n=n)
            for mark, n in zip(self.marks, (1, -(-rows // MERGE), 1), strict=True)
        )
        lines = rearrange(tokens, "b (r k) d -> b r k d", r=newline.shape[1])
        lines = torch.cat([lines, newline[:, :, None]], dim=2)
        return torch.cat([start, rearrange(lines, "b r k d -> b (r k) d"), end], dim=1)


def fit_eye(
    eye: Eye, model: MediaModel, pictures: Pictures, steps: int, *, seed: int = 0, rate: float = 3e-3
) -> Iterator[dict[str, float]]:
    """Train the eye in place, the model frozen, on captions of noised pictures; yield each loss."""
    generator, v = torch.Generator().manual_seed(seed), model.vocabulary
    names = [name_words(int(d), bool(b)) for d, b in zip(pictures.labels, pictures.is_bold, strict=True)]
    captions = torch.tensor([[*v.words(f"this is {name}"), v.eos] for name in names])
    optimizer = torch.optim.AdamW(eye.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    learning = [p.requires_grad for p in model.parameters()]
    model.eval().requires_grad_(False)
    eye.train()
    for step in range(steps):
        chosen = torch.randint(len(pictures), (ROWS,), generator=generator)
        noise = torch.randn(ROWS, *pictures.pixels.shape[1:], generator=generator)
        spans = eye(pictures.pixels[chosen] + 0.1 * noise)
        ids = _with_place(model, spans, captions[chosen])
        labels = ids.clone()
        labels[:, : spans.shape[1] + 3] = IGNORED  # <bos>, the span, "this is"
        with model.embedding.seeing(spans, begin=1):
            loss = model.loss(ids, labels=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield {"step": step + 1, "loss": loss.item()}
    for p, learns in zip(model.parameters(), learning, strict=True):
        p.requires_grad_(learns)
    eye.eval()


@torch.no_grad()
def captions_by_eye(eye: Eye, model: MediaModel, pixels: Tensor, max_words: int = 3) -> list[str]:
    """What the model says that pictures show, greedily, in words, through the eye: (b, y, x) -> captions."""
    v, spans = model.vocabulary, eye(pixels)
    said = torch.tensor([v.words("this is")] * len(pixels))
    is_said = torch.zeros(v.size, dtype=torch.bool)
    is_said[[v.eos, *v.words(" ".join(WORDS))]] = True
    for _ in range(max_words):
        ids = _with_place(model, spans, said)
        with model.embedding.seeing(spans, begin=1):
            logits = model(ids, sample_ids=torch.zeros_like(ids))[:, -1:]
        said = torch.cat([said, logits.masked_fill(~is_said, -torch.inf).argmax(dim=-1)], dim=1)
    return [v.text(row[2:]).split(" <eos>")[0] for row in said.tolist()]


def _with_place(model: MediaModel, spans: Tensor, ids: Tensor) -> Tensor:
    """<bos>, as many nulls as a span is long, then ids (b, s)."""
    v = model.vocabulary
    before = torch.tensor([v.bos] + [v.null] * spans.shape[1])
    return torch.cat([repeat(before, "s -> b s", b=len(ids)), ids], dim=1)
