"""Writing words, pictures and videos, held to the grammar, with guidance, a token a step.

    logits = without + guidance · (with - without)

where `with` has read the request and `without` the same document with nulls in place of its words, those that
it wrote itself included. Guidance acts on codes only; 1 reads the request once, 0 never.

Axes: b rows, v vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.media.grammar import Grammar
from workbench.media.model import MediaModel
from workbench.media.vocabulary import Vocabulary
from workbench.model.cache import Cache
from workbench.model.generate import pad, read
from workbench.model.sampling import RowUniforms, Sampling

MAX_NEW_TOKENS = 160
WARM = Sampling(temperature=1.0)  # the model's own distribution
# Cooler, and without the least probable tenth: one unlikely code in sixteen already spoils a digit.
CAREFUL = Sampling(temperature=0.8, top_p=0.9)


@dataclass(frozen=True)
class Request:
    """A prompt, and the same without its words; equally long."""

    ids: list[int]
    unasked: list[int]

    @staticmethod
    def of(vocabulary: Vocabulary, text: str, before: Sequence[int] = ()) -> "Request":
        """A request in words, after what else has been said or shown (ids that follow <bos>)."""
        words = vocabulary.words(text)
        start = [vocabulary.bos, *before]
        return Request(start + words, start + [vocabulary.null] * len(words))


def write(
    model: MediaModel,
    requests: Sequence[Request],
    *,
    guidance: float = 1.0,
    sampling: Sampling = CAREFUL,
    generator: torch.Generator | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[list[int]]:
    """Answer every request: the new tokens, <eos> included.

    Raises:
        ValueError: as `stream`.
    """
    written: list[list[int]] = [[] for _ in requests]
    steps = stream(
        model,
        requests,
        guidance=guidance,
        sampling=sampling,
        generator=generator,
        max_new_tokens=max_new_tokens,
    )
    for tokens in steps:
        for row, token in enumerate(tokens):
            if token is not None:
                written[row].append(token)
    return written


@torch.no_grad()
def stream(
    model: MediaModel,
    requests: Sequence[Request],
    *,
    guidance: float = 1.0,
    sampling: Sampling = CAREFUL,
    generator: torch.Generator | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[list[int | None]]:
    """As `write`, yielding every step's token of each row as it is chosen; None in rows that have ended.

    Raises:
        ValueError: a malformed prompt, negative guidance, or too little room to end a picture that the
            prompt has begun.
    """
    if guidance < 0:
        raise ValueError(f"write: got guidance={guidance}; needs 0 or more; 1.5 to 2 serves best")
    with_, without = [list(r.ids) for r in requests], [list(r.unasked) for r in requests]
    known = without if guidance == 0 else with_ if guidance == 1 else with_ + without
    n, past, v = len(requests), [list[int]() for _ in known], model.vocabulary
    machines = [Grammar(v, ids) for ids in with_]
    cache = model.new_cache(len(known), max(map(len, known)) + max_new_tokens)
    uniforms = RowUniforms(sampling, generator, n, model.device)
    unread = known
    for step in range(max_new_tokens):
        logits = _read(model, cache, past, unread)
        if len(known) > n:
            in_codes = torch.tensor([[machine.in_codes] for machine in machines])
            asked, unasked = logits[:n], logits[n:]
            logits = torch.where(in_codes, guided(asked, unasked, guidance), asked)
        room = max_new_tokens - step
        fits = torch.stack([machine.allowed(room) for machine in machines]).to(logits.device)
        chosen = sampling.choose(logits.masked_fill(~fits, -torch.inf), uniforms(range(n), 1)[:, 0]).tolist()
        tokens = [None if m.is_done else token for m, token in zip(machines, chosen, strict=True)]
        for machine, token in zip(machines, tokens, strict=True):
            if token is not None:
                machine.read(token)
        yield tokens
        if all(machine.is_done for machine in machines):
            return
        past = [a + b for a, b in zip(past, unread, strict=True)]
        said = [[] if token is None else [token] for token in tokens]
        unsaid = [[v.null if v.is_word(token) else token for token in row] for row in said]
        unread = said if guidance in (0, 1) else said + unsaid


def guided(with_: Tensor, without: Tensor, guidance: float) -> Tensor:
    """Logits that go `guidance` times as far as the request moves them: all shapes alike."""
    return without + guidance * (with_ - without)


def _read(model: MediaModel, cache: Cache, past: list[list[int]], unread: list[list[int]]) -> Tensor:
    """Logits after the unread tokens of each row: (b, v)."""
    # Pasts are of different lengths: aligned on the right, behind padding that means nothing to places.
    longest, filler = max(map(len, past)), model.vocabulary.pad
    left = [[filler] * (longest - len(row)) + row for row in past]
    width = max(map(len, unread))
    known = torch.cat(
        [pad(left, model.device, longest).long(), pad(unread, model.device, width).long()], dim=1
    )
    with model.embedding.reading(known, longest):
        streams = read(model, cache, unread, keep=1)
    logits: Tensor = model.lm_head(model.model.collapse(streams))[:, 0].float()
    return logits
