"""Supervised steps: a policy learns the completions of documents, by the same loop that pre-trains."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from workbench.model import Transformer
from workbench.model.loss import IGNORED
from workbench.reasoning.completions import Document
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.schedules import BatchRamp, LearningRate


def fine_tune(
    policy: Transformer,
    documents: Sequence[Document],
    steps: int,
    *,
    rate: float = 5e-3,
    rows: int = 20,
    row_tokens: int = 96,
    warmup_steps: int = 20,
    decay: float = 0.5,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Train on what the policy shall say (nothing else carries loss): a row a step; see training.loop.train.

    Muon for the matrices: at this size it learns in hundreds of steps what AdamW does not learn at all.

    Args:
        rate: of the plateau; it falls to a tenth over the last `decay` of the steps.
        rows: of a step, each packed with several documents.
        folder: where checkpoints go, and from which a killed run goes on.

    Raises:
        ValueError: no documents, or as training.loop.train.
    """
    if not documents:
        raise ValueError("fine_tune: got no documents; needs one or more; draw some with completions.solved")
    ids = [document.ids for document in documents]
    labels = [
        [IGNORED if place < d.prompt_tokens or place in d.heard else i for place, i in enumerate(d.ids)]
        for d in documents
    ]
    recipe = Recipe(
        LearningRate(
            peak=rate,
            final=rate / 10,
            warmup_steps=min(warmup_steps, steps // 4),
            decay_steps=int(decay * steps),
            total_steps=steps,
        ),
        BatchRamp(rows, rows, 0),
        micro_rows=rows,
    )
    return train(policy, Loader(ids, row_tokens, seed, labels), recipe, folder=folder)
