"""Reading the other way: V4.1's vision path, small and trained, before a backbone that stays as it is.

    pixels -> patches of 2 x 2 -> encoder with 2-D RoPE -> 2 x 2 -> projector -> START (row NEWLINE)* END

The span takes the place of embeddings in the prompt, as V4.1's does, where `tasks.read` has codes. It learns
as V4.1's encoder does, alone first, then before the language model; that model does not learn here, so what
the eye gives is read by the same weights that draw.

Axes: b pictures, y and x pixels, k positions of a span, d hidden_size.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from workbench.media.data import Pictures, turned
from workbench.media.model import MediaModel
from workbench.media.tasks import name_words
from workbench.media.vision import VisionEncoder, patches
from workbench.media.vocabulary import WORDS
from workbench.model.loss import IGNORED
from workbench.training.schedules import LearningRate

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

    def tokens(self, pixels: Tensor) -> Tensor:
        """The picture's own tokens, row by row, without marks."""
        rows, columns = (side // SIDE for side in pixels.shape[1:])
        found: Tensor = self.encoder(patches(pixels[:, None], SIDE), (rows, columns))
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        tokens, n_rows = self.tokens(pixels), -(-pixels.shape[1] // (SIDE * MERGE))
        start, newline, end = (
            repeat(mark, "d -> b n d", b=len(pixels), n=n)
            for mark, n in zip(self.marks, (1, n_rows, 1), strict=True)
        )
        lines = rearrange(tokens, "b (r k) d -> b r k d", r=n_rows)
        lines = torch.cat([lines, newline[:, :, None]], dim=2)
        return torch.cat([start, rearrange(lines, "b r k d -> b (r k) d"), end], dim=1)


def fit_alone(
    eye: Eye, pictures: Pictures, steps: int, *, seed: int = 0, rate: float = 2e-3
) -> Iterator[dict[str, float]]:
    """Teach the eye to tell pictures by their captions, without a language model; yield each loss.

    Pictures are turned, moved and noised. A batch is held against all captions that there are.

    Departs: DeepSeek's encoder learns alone, too, from pairs within a batch by sigmoids (SigLIP). Here twenty
        captions are all, so their vectors are a table, left behind afterwards, and the contrast is a softmax.
    """
    generator = torch.Generator().manual_seed(seed)
    names = _names(pictures)
    captions = sorted(set(names))
    wanted = torch.tensor([captions.index(name) for name in names])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        table = nn.Linear(eye.marks.shape[1], len(captions))

    def loss() -> Tensor:
        chosen = torch.randint(len(pictures), (2 * ROWS,), generator=generator)
        seen = turned(pictures.pixels[chosen], generator)
        tokens = reduce(eye.tokens(_noised(seen, generator)), "b k d -> b d", "mean")
        return F.cross_entropy(table(tokens), wanted[chosen])

    eye.train()
    yield from _descend([*eye.parameters(), *table.parameters()], steps, rate, loss)
    eye.eval()


def fit_eye(
    eye: Eye, model: MediaModel, pictures: Pictures, steps: int, *, seed: int = 0, rate: float = 3e-3
) -> Iterator[dict[str, float]]:
    """Teach the eye to be read by this model, on captions of noised pictures; yield each loss.

    What learns are the last norm, the projector and the marks: as in V4.1's main run the rest of the encoder
    stays as it is, and here the model does, too.

    Source: DeepSeek-V4.1-Flash, report, training recipe.
    """
    generator, v = torch.Generator().manual_seed(seed), model.vocabulary
    captions = torch.tensor([[*v.words(f"this is {name}"), v.eos] for name in _names(pictures)])

    def loss() -> Tensor:
        chosen = torch.randint(len(pictures), (ROWS,), generator=generator)
        spans = eye(_noised(pictures.pixels[chosen], generator))
        ids = _with_place(model, spans, captions[chosen])
        labels = ids.clone()
        labels[:, : spans.shape[1] + 3] = IGNORED  # <bos>, the span, "this is"
        with model.embedding.seeing(spans, begin=1):
            return model.loss(ids, labels=labels)

    encoder = eye.encoder
    learning = [eye.marks, *encoder.norm.parameters(), *encoder.projector.parameters()]
    resting = [p for p in [*model.parameters(), *encoder.parameters()] if p.requires_grad]
    model.eval().requires_grad_(False)
    encoder.requires_grad_(False)
    for p in learning:
        p.requires_grad_(True)
    eye.train()
    yield from _descend(learning, steps, rate, loss)
    for p in resting:
        p.requires_grad_(True)
    eye.eval()


def _descend(
    parameters: list[nn.Parameter], steps: int, rate: float, loss: Callable[[], Tensor]
) -> Iterator[dict[str, float]]:
    """AdamW with a tenth of the steps to warm up and a cosine to nothing."""
    schedule = LearningRate(rate, 0.0, steps // 10, steps - steps // 10, steps)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        found = loss()
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        yield {"step": step + 1, "loss": found.item()}


def _names(pictures: Pictures) -> list[str]:
    return [name_words(int(d), bool(b)) for d, b in zip(pictures.labels, pictures.is_bold, strict=True)]


def _noised(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return pixels + 0.1 * torch.randn(pixels.shape, generator=generator)


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
