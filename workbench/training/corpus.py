"""A real text for pre-training without a network: documents, split, then tokenised.

Which documents are held out depends on their content alone: those with the smallest hashes, until their
share of the characters is reached. Adding a document moves few others across, and order moves none. The
tokenizer learns its merges from the training documents only.

A document is begin token, text, end token; the report does not print what stands around one.

Report: section 4.1 (whole documents packed, attention within a sample).
"""

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workbench.model.chat.markup import MARKUP
from workbench.model.tokenizer import SPLITS, Tokenizer, offline_corpus

TOKENS, TOKENIZER = "tokens.safetensors", "tokenizer.json"
LAYOUT = 1  # of the cached files; another layout is another cache


@dataclass(frozen=True)
class Corpus:
    """Documents as token ids, those trained on and those held out, with their tokenizer.

    held_out_bytes: UTF-8 bytes of the held-out texts, to turn nats a token into bits a byte.
    """

    tokenizer: Tokenizer
    train: list[list[int]]
    held_out: list[list[int]]
    held_out_bytes: int

    def bits_per_byte(self, loss: float) -> float:
        """A held-out loss in nats a predicted token as bits a byte of text, for any vocabulary.

        The end token is predicted too and counts as cost of the text.
        """
        predicted = sum(len(document) - 1 for document in self.held_out)
        return loss / math.log(2) * predicted / self.held_out_bytes


def load_corpus(
    vocab_size: int,
    *,
    texts: Iterable[str] | None = None,
    held_out_share: float = 0.05,
    cache: str | Path | None = None,
) -> Corpus:
    """Split texts by document, train a tokenizer and encode them. The same texts give the same corpus.

    Empty and repeated texts are left out: a copy could stand on both sides of the split.

    Args:
        texts: `tokenizer.offline_corpus()` if None.
        held_out_share: of the characters; at least one document is on each side.
        cache: a folder; a corpus lies there under a hash of all that it depends on, and is read from there.

    Raises:
        ValueError: fewer than two different texts, a share outside (0, 1), a vocabulary that the texts do
            not fill, or a damaged cache.
    """
    distinct = sorted({text for text in (offline_corpus() if texts is None else texts) if text}, key=_hash)
    if len(distinct) < 2 or not 0 < held_out_share < 1:
        raise ValueError(
            f"load_corpus: got {len(distinct)} different texts that are not empty and held_out_share="
            f"{held_out_share}; needs at least 2, one to train on and one to hold out, and a share between 0 "
            f"and 1; give more texts or another share"
        )
    if cache is None:
        return _build(distinct, vocab_size, held_out_share)
    settings = [LAYOUT, vocab_size, held_out_share, SPLITS, MARKUP, tokenizers.__version__]
    key = _hash(json.dumps([*settings, [_hash(text) for text in distinct]]))[:24]
    folder = Path(cache) / f"corpus-{key}"
    if not folder.exists():
        _write(_build(distinct, vocab_size, held_out_share), folder)
    return _read(folder)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _build(texts: Sequence[str], vocab_size: int, held_out_share: float) -> Corpus:
    """texts: in the order of their hashes."""
    wanted, n_held_out, characters = held_out_share * sum(map(len, texts)), 0, 0
    while n_held_out < len(texts) - 1 and characters < wanted:
        characters += len(texts[n_held_out])
        n_held_out += 1
    tokenizer = Tokenizer.train(texts[n_held_out:], vocab_size)
    documents = [[tokenizer.bos_token_id, *tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]
    n_bytes = sum(len(text.encode("utf-8")) for text in texts[:n_held_out])
    return Corpus(tokenizer, documents[n_held_out:], documents[:n_held_out], n_bytes)


def _write(corpus: Corpus, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    scratch.mkdir()
    try:
        documents = corpus.held_out + corpus.train
        save_file(
            {
                "ids": torch.tensor([i for document in documents for i in document], dtype=torch.int32),
                "lengths": torch.tensor([len(document) for document in documents]),
                "held_out": torch.tensor([len(corpus.held_out), corpus.held_out_bytes]),
            },
            scratch / TOKENS,
        )
        corpus.tokenizer.save(scratch / TOKENIZER)
        os.rename(scratch, folder)
    except OSError:
        if not folder.exists():  # another process may have been first; then its folder serves
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read(folder: Path) -> Corpus:
    try:
        tensors = load_file(folder / TOKENS)
        tokenizer = Tokenizer.load(folder / TOKENIZER)
        parts = tensors["ids"].split(tensors["lengths"].tolist())
        documents = [part.tolist() for part in parts]
        n_held_out, n_bytes = tensors["held_out"].tolist()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"load_corpus: {folder} is damaged ({error}); needs a whole {TOKENS} and {TOKENIZER}; remove "
            f"that folder, and it is made again"
        ) from error
    return Corpus(tokenizer, documents[n_held_out:], documents[:n_held_out], n_bytes)
