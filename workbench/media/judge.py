"""An independent judge of digits: a small convolutional network that never sees what the model writes.

It is trained on training digits alone, shifted and noised a little. Its own error on held-out digits belongs
beside every number it gives. Two judges of different widths and seeds keep each other honest: one for
choosing settings, the other for the number that is reported.

Axes: b pictures, y and x pixels (8 x 8), f features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.media.data import Pictures, shifted

N_FEATURES = 32


class Judge(nn.Module):
    """Says which digit a picture shows. Shapes: (b, 8, 8) -> logits (b, 10)."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, N_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(N_FEATURES, 10)

    def features(self, pixels: Tensor) -> Tensor:
        """What the Fréchet distance compares: (b, 8, 8) -> (b, f)."""
        found: Tensor = self.body(pixels[:, None])
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(pixels))
        return logits

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Tensor:
        """The digit that each picture shows most likely: (b, 8, 8) -> (b,)."""
        return self(pixels).argmax(dim=1)

    def accuracy(self, pixels: Tensor, labels: Tensor) -> float:
        """The share of pictures read as labelled."""
        return float((self.read(pixels) == labels).float().mean())


def train_judge(pictures: Pictures, seed: int, *, width: int = 32, steps: int = 1500) -> Judge:
    """A judge trained from scratch: seconds on one core."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(width)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(pictures), (64,), generator=generator)
        noise = torch.randn(64, 8, 8, generator=generator)
        seen = shifted(pictures.pixels[chosen], generator) + 0.1 * noise
        loss = F.cross_entropy(judge(seen), pictures.labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()
