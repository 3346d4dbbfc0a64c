"""A V4 from scratch on text: corpus, model, schedule, loop, and a model folder at the end."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from workbench.config import ModelConfig
from workbench.files import write_whole
from workbench.model import Transformer, save_pretrained
from workbench.training.corpus import TOKENIZER, Corpus, load_corpus
from workbench.training.distributed.launch import joined
from workbench.training.distributed.process_ranks import ProcessRanks
from workbench.training.distributed.sharding import shard, whole_weights
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, mean_loss, train
from workbench.training.progress import with_bar, with_table
from workbench.training.ranks import Ranks
from workbench.training.schedules import BatchRamp, LearningRate

MODEL, RESULT, ROWS, CORPUS = "model", "result.json", "rows.csv", "corpus"


@dataclass(frozen=True)
class TextRun:
    """What a run on text is: its size, its rate, its seed.

    Args:
        steps: of the optimisers; the first twentieth warms up, the last three tenths decay to a tenth.
        rows, row_tokens: of a step; micro_rows of them are in one forward pass.
        held_out_rows: to measure the loss at the end.
    """

    steps: int
    rows: int = 16
    row_tokens: int = 256
    micro_rows: int = 8
    peak: float = 8e-3
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_every: int = 50
    held_out_rows: int = 256

    @property
    def recipe(self) -> Recipe:
        rate = LearningRate(self.peak, self.peak / 10, self.steps // 20, self.steps * 3 // 10, self.steps)
        return Recipe(
            rate, BatchRamp(self.rows, self.rows, 0), micro_rows=self.micro_rows, precision=self.precision
        )


def read_texts(folder: Path) -> list[str]:
    """The .txt and .md files of a folder and of those in it.

    Raises:
        ValueError: there are none, or one is not UTF-8.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".txt", ".md"))
    if not paths:
        raise ValueError(f"read_texts: {folder} holds no .txt or .md file; give a folder of texts")
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"read_texts: {path} is not UTF-8 ({error}); convert or remove it") from error
    return texts


def run_on_text(
    config: ModelConfig,
    run: TextRun,
    folder: Path,
    *,
    texts: Path | None = None,
    device: str = "cpu",
    n_context: int = 1,
    n_expert: int = 1,
) -> dict[str, Any]:
    """Train, or go on with, the run of a folder; returns what its result.json says.

    The folder gets rows.csv (every step), the last two checkpoints, and when the run is done model/
    (transformers' layout, with the tokenizer) and result.json. Under torchrun every process calls this;
    how many there are may change between a kill and the resumption.

    Raises:
        ValueError: the folder holds a finished run or another one, or bad settings, texts or devices.
    """
    if (folder / MODEL).exists():
        raise ValueError(f"run_on_text: {folder / MODEL} is a finished run's; give another folder")
    begun = time.perf_counter()
    with joined(device, n_context=n_context, n_expert=n_expert) as (ranks, own_device):
        corpus = _corpus(config.vocab_size, texts, folder / CORPUS, ranks)
        model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(own_device)
        n_parameters = sum(p.numel() for p in model.parameters())
        if isinstance(ranks, ProcessRanks):
            shard(model, ranks)
        rows = train(
            model,
            Loader(corpus.train, run.row_tokens, run.seed),
            run.recipe,
            folder=folder,
            checkpoint_every=run.checkpoint_every,
            ranks=ranks,
        )
        if ranks.is_first:
            print(
                f"{n_parameters:,} parameters; {sum(map(len, corpus.train)):,} tokens of text, "
                f"{run.steps * run.rows * run.row_tokens:,} are read (processes: {ranks.n_ranks}, {device})"
            )
            rows = with_bar(with_table(rows, folder / ROWS), run.steps)  # type: ignore[assignment]
        for _ in rows:
            pass
        loss = mean_loss(model, held_out(corpus, run), ranks)
        result = {
            "parameters": n_parameters,
            "steps": run.steps,
            "tokens": run.steps * run.rows * run.row_tokens,
            "held_out_loss": loss,
            "bits_per_byte": corpus.bits_per_byte(loss),
            "processes": ranks.n_ranks,
            "seconds_of_this_process": round(time.perf_counter() - begun, 1),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        weights = whole_weights(model)
        if ranks.is_first:
            whole = Transformer(config)
            whole.load_state_dict(weights)
            scratch = folder / f"{MODEL}.tmp"
            save_pretrained(whole, scratch)
            corpus.tokenizer.save(scratch / TOKENIZER)
            write_whole(folder / RESULT, json.dumps(result, indent=1) + "\n")
            scratch.rename(folder / MODEL)
            print(
                f"held-out loss {loss:.4f} nats a token, {result['bits_per_byte']:.3f} bits a byte; model "
                f"in {folder / MODEL}"
            )
        ranks.wait()
    return result


def _corpus(vocab_size: int, texts: Path | None, cache: Path, ranks: Ranks) -> Corpus:
    """The corpus, which the first process makes and the others read."""
    given = None if texts is None else read_texts(texts)
    if not ranks.is_first:
        ranks.wait()
    corpus = load_corpus(vocab_size, texts=given, cache=cache)
    if ranks.is_first:
        ranks.wait()
    return corpus


def held_out(corpus: Corpus, run: TextRun) -> list[Any]:
    """At most held_out_rows rows, in batches that the training's processes can share out."""
    loader = Loader(corpus.held_out, run.row_tokens, seed=0)
    batches = max(min(len(loader), run.held_out_rows) // run.rows, 1)
    return [loader.take(run.rows) for _ in range(batches)]
