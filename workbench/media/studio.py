"""Tokenizer, model and eye together: what draws, films, reads and watches. And the recipe that trains them.

First the tokenizer; then, with it held fixed, one V4 on one mixture of all tasks by the training loop of
pre-training; last, before that V4 as it is, the eye, which is V4.1's way of reading.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.media.data import Pictures
from workbench.media.eye import Eye, fit_alone, fit_eye
from workbench.media.fit_tokenizer import fit_tokenizer
from workbench.media.model import CODE_WEIGHT, MediaModel
from workbench.media.quantisers import FSQ
from workbench.media.tasks import Album, documents
from workbench.media.tokenizer import LEVELS, MediaTokenizer
from workbench.media.vocabulary import Vocabulary
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.schedules import BatchRamp, LearningRate

# A film with a picture beside it fills a row of 160 tokens.
MIXTURE = dict(draw=8000, film=8000, read=3000, watch=1500, animate=1500, next=1500, count=1000)
# A third of its loss lies on words; of the mixture's, a few hundredths.
POLISH = dict(draw=1600, film=400, read=600, watch=150, animate=150, next=150, count=9000)


@dataclass(frozen=True)
class MediaRecipe:
    """How long, and on what: the tokenizer, the backbone, a short last part with more text in it, the eye.

    Args:
        mixture: documents of each task that are written once and then read in turn.
        photographs: share of the tokenizer's steps on photographs.
        polish: documents of the last part; its rate falls from polish_rate on.
        text_goal: the last part comes again, at most polish_rounds times in all, until this share of the
            sentences is finished rightly. All of them are trained on, so nothing held out decides.
    """

    tokenizer_steps: int = 2500
    photographs: float = 0.12
    steps: int = 4400
    rows: int = 8
    row_tokens: int = 160
    peak_rate: float = 4e-3
    code_weight: float = CODE_WEIGHT
    mixture: Mapping[str, int] = field(default_factory=lambda: dict(MIXTURE))
    polish_steps: int = 170
    polish_rounds: int = 3
    text_goal: float = 0.99
    polish_rate: float = 1.5e-3
    polish: Mapping[str, int] = field(default_factory=lambda: dict(POLISH))
    twin_steps: int = 260
    eye_alone_steps: int = 2500
    eye_steps: int = 300

    @property
    def loop(self) -> Recipe:
        """The recipe of the training loop: 2% warm-up, 40% decay to a twentieth."""
        rate = LearningRate(
            self.peak_rate, self.peak_rate / 20, self.steps // 50, 2 * self.steps // 5, self.steps
        )
        return Recipe(rate, BatchRamp(self.rows, self.rows, 0), micro_rows=self.rows)

    @property
    def text_alone(self) -> "MediaRecipe":
        """For a twin: about as many sentences as all parts hold together, and nothing else."""
        return replace(self, steps=self.twin_steps, rows=2, mixture=dict(count=12000))

    @property
    def last_part(self) -> "MediaRecipe":
        """The polish as a recipe of its own."""
        return replace(self, steps=self.polish_steps, peak_rate=self.polish_rate, mixture=self.polish)


@dataclass(frozen=True)
class Studio:
    """A tokenizer and a model that share a vocabulary, and an eye for that model."""

    tokenizer: MediaTokenizer
    model: MediaModel
    vocabulary: Vocabulary
    eye: Eye

    @staticmethod
    def fresh(seed: int, code_weight: float = CODE_WEIGHT) -> "Studio":
        """All with first weights that the seed draws."""
        quantiser = FSQ(LEVELS)
        vocabulary = Vocabulary(quantiser.n_codes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokenizer = MediaTokenizer(quantiser)
        generator = torch.Generator().manual_seed(seed)
        model = MediaModel(vocabulary, quantiser, generator=generator, code_weight=code_weight)
        return Studio(tokenizer.eval(), model.eval(), vocabulary, Eye.fresh(model, seed))

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is trained, by name."""
        return {"tokenizer": self.tokenizer, "model": self.model, "eye": self.eye}

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write all parts as safetensors into a folder; weights in another dtype come back rounded to it."""
        folder.mkdir(parents=True, exist_ok=True)
        for part, module in self.parts.items():
            state = {
                name: (x.to(dtype) if x.is_floating_point() else x).contiguous()
                for name, x in module.state_dict().items()
            }
            save_file(state, folder / f"{part}.safetensors")

    @staticmethod
    def load(folder: Path) -> "Studio":
        """What `save` wrote.

        Raises:
            ValueError: the folder lacks a file.
        """
        studio = Studio.fresh(0)
        for part, module in studio.parts.items():
            path = folder / f"{part}.safetensors"
            if not path.is_file():
                raise ValueError(
                    f"Studio.load: {folder} has no {path.name}; needs what Studio.save wrote; save a "
                    f"trained one there"
                )
            module.load_state_dict(load_file(path))
        return studio


def train_tokenizer(studio: Studio, pictures: Pictures, recipe: MediaRecipe, seed: int) -> Iterator[dict]:
    """The first part of training: rows of {"step", "loss"}."""
    yield from fit_tokenizer(
        studio.tokenizer, pictures, recipe.tokenizer_steps, seed=seed, photographs=recipe.photographs
    )


def loader(studio: Studio, pictures: Pictures, recipe: MediaRecipe, seed: int) -> Loader:
    """The mixture, written about these pictures and packed into rows."""
    written = documents(Album(pictures, studio.tokenizer), studio.vocabulary, dict(recipe.mixture), seed)
    return Loader(
        [document.ids for document in written],
        recipe.row_tokens,
        seed,
        labels=[document.labels for document in written],
    )


def train_backbone(
    studio: Studio, pictures: Pictures, recipe: MediaRecipe, seed: int, folder: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The second part: the model on the mixture, the tokenizer as it is. Rows as of `training.loop.train`.

    Args:
        folder: of checkpoints; a run that was broken off goes on from the last one.
    """
    yield from train(
        studio.model,
        loader(studio, pictures, recipe, seed),
        recipe.loop,
        folder=folder,
        checkpoint_every=50,
    )
    studio.model.eval()


def train_eye(
    studio: Studio, pictures: Pictures, recipe: MediaRecipe, seed: int
) -> Iterator[dict[str, float]]:
    """The last part: the eye, alone and then before the model as it is. Rows of {"step", "loss"} of both."""
    yield from fit_alone(studio.eye, pictures, recipe.eye_alone_steps, seed=seed)
    yield from fit_eye(studio.eye, studio.model, pictures, recipe.eye_steps, seed=seed)
