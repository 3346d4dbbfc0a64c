"""The loss by modality: what a word costs and what a code, on documents that were not trained on."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from workbench.media.model import MediaModel
from workbench.media.tasks import Document
from workbench.media.vocabulary import MARKERS, WORDS
from workbench.model.loss import IGNORED
from workbench.training.loader import Loader

ROW_TOKENS = 160


@torch.no_grad()
def losses(model: MediaModel, written: Sequence[Document]) -> dict[str, float]:
    """Nats a predicted token, unweighted: of "words", "codes", and "markers" with sizes; those there are."""
    loader = Loader([d.ids for d in written], ROW_TOKENS, 0, labels=[d.labels for d in written])
    batch, v = loader.peek(len(loader)), model.vocabulary
    logits = model(batch.input_ids, sample_ids=batch.sample_ids)[:, :-1]
    follows = batch.sample_ids[:, 1:] == batch.sample_ids[:, :-1]
    target = batch.labels[:, 1:].masked_fill(~follows, IGNORED)
    nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none", ignore_index=IGNORED)
    token = target.flatten()
    is_word = (token >= len(MARKERS)) & (token < len(MARKERS) + len(WORDS))
    kinds = {"words": is_word, "codes": token >= v.first_code}
    kinds["markers"] = (token != IGNORED) & ~kinds["words"] & ~kinds["codes"]
    return {kind: float(nats[chosen].mean()) for kind, chosen in kinds.items() if chosen.any()}
