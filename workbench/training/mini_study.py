"""The mini V4 beside a dense transformer of its size, on one text at equal FLOPs: a recorded study.

    python -m workbench.training.mini_study FOLDER

trains both on one core (half an hour together) and writes their losses down. The dense one is transformers'
Llama; text, tokenizer, row order, optimisers and schedule are those of the V4, so that what differs is the
architecture. It reads as many steps as the V4's FLOPs buy. One seed and one learning rate each: the study
shows a run, not a law.

FLOPs are torch's count of the forward pass as it runs; the backward pass costs both twice as much, and the
optimisers are left out.
Report: section 4 (what is compared is ours: the report has no dense twin). Axes: b rows, s tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from workbench.config import ModelConfig, load_config
from workbench.files import write_whole
from workbench.model import Transformer
from workbench.model.loss import IGNORED
from workbench.training.corpus import Corpus, load_corpus
from workbench.training.loader import Batch, Loader
from workbench.training.loop import n_predicted
from workbench.training.muon import Muon
from workbench.training.text_run import CORPUS, TextRun, held_out, read_texts, run_on_text

RECORD = Path(__file__).parents[1] / "data" / "studies" / "mini.json"
RUN = TextRun(steps=260, rows=16, row_tokens=256, seed=0)


def mini() -> ModelConfig:
    """The preset without its MTP block: 13.8 million parameters."""
    config = load_config("mini")
    return config.replace(num_nextn_predict_layers=0, compress_ratios=config.layer_ratios)


def dense_twin(n_parameters: int, vocab_size: int, seed: int) -> nn.Module:
    """A Llama of six layers, as wide as a number of parameters allows.

    Raises:
        ValueError: transformers is not installed, or the number is too small.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise ValueError(f"dense_twin: {error}; pip install -e '.[test]' to have transformers") from error

    def twin(width: int) -> nn.Module:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocab_size, hidden_size=width, intermediate_size=width * 8 // 3 // 16 * 16,
            num_hidden_layers=6, num_attention_heads=width // 32, attention_bias=False,
            tie_word_embeddings=False, max_position_embeddings=RUN.row_tokens,
        )  # fmt: skip
        config._attn_implementation = "eager"  # torch counts no FLOPs in its fused attention on a CPU
        return LlamaForCausalLM(config)

    with torch.device("meta"):
        fits = [width for width in range(32, 1024, 32) if n_numbers(twin(width)) <= n_parameters]
    if not fits:
        raise ValueError(
            f"dense_twin: got {n_parameters} parameters and vocab_size={vocab_size}; six layers of width 32 "
            f"have more; compare a larger model"
        )
    return twin(fits[-1])


def n_numbers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def twin_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Nats a predicted token; attention stays within a sample, as in the V4.

    Shapes: all of the batch (b, s).
    """
    ids, samples, labels = batch
    s = ids.shape[1]
    sees = (samples[:, :, None] == samples[:, None, :]) & torch.ones(s, s, dtype=torch.bool).tril()
    begins = torch.arange(s) * (samples != samples.roll(1, 1))
    mask = torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))[:, None]
    logits = model(ids, attention_mask=mask, position_ids=torch.arange(s) - begins.cummax(1)[0]).logits
    follows = samples[:, 1:] == samples[:, :-1]
    targets = labels[:, 1:].masked_fill(~follows, IGNORED)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def forward_flop(model: nn.Module, batch: Batch) -> int:
    """FLOPs of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(model, Transformer):
            model.loss(batch.input_ids, labels=batch.labels, sample_ids=batch.sample_ids)
        else:
            twin_loss(model, batch)
    return counter.get_total_flops()


def train_twin(model: nn.Module, corpus: Corpus, run: TextRun, steps: int) -> None:
    """The V4's loop without what only a V4 has: Muon for matrices, AdamW for the rest, one schedule."""
    vectors = [
        p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name or "lm_head" in name
    ]
    known = {id(p) for p in vectors}
    optimizers: list[torch.optim.Optimizer] = [
        Muon([p for p in model.parameters() if id(p) not in known], run.peak),
        torch.optim.AdamW(vectors, lr=run.peak, betas=(0.9, 0.95), eps=1e-20, weight_decay=0.1),
    ]
    loader, rate = Loader(corpus.train, run.row_tokens, run.seed), TextRun(steps, peak=run.peak).recipe.rate
    for step in range(steps):
        batch = loader.take(run.rows)
        total = n_predicted(batch)
        for part in zip(*(x.split(run.micro_rows) for x in batch), strict=True):
            micro = Batch(*part)
            (twin_loss(model, micro) * (n_predicted(micro) / total)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.step()
            optimizer.zero_grad()


@torch.no_grad()
def twin_mean_loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    counts = [n_predicted(batch) for batch in batches]
    return sum(n * twin_loss(model, b).item() for n, b in zip(counts, batches, strict=True)) / sum(counts)


def run_study(config: ModelConfig, run: TextRun, folder: Path, texts: Path | None = None) -> dict[str, Any]:
    """Train both; what the record says. A V4 that the folder holds half trained goes on."""
    begun = time.perf_counter()
    v4 = run_on_text(config, run, folder, texts=texts)
    given = None if texts is None else read_texts(texts)
    corpus = load_corpus(config.vocab_size, texts=given, cache=folder / CORPUS)
    batches = held_out(corpus, run)
    sample = batches[0]
    flop = forward_flop(Transformer(config, generator=torch.Generator().manual_seed(run.seed)), sample)
    twin = dense_twin(v4["parameters"], config.vocab_size, run.seed)
    twin_flop = forward_flop(twin, sample)
    steps = round(run.steps * flop / twin_flop)
    middle = time.perf_counter()
    train_twin(twin, corpus, run, steps)
    loss = twin_mean_loss(twin, batches)
    return {
        "about": "Held-out loss (nats a token) of the mini V4 and of a dense transformer of its size, on one "
        "text at equal FLOPs, one seed.",
        "command": "python -m workbench.training.mini_study FOLDER",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "v4": {**v4, "forward_flop_per_row": flop / run.rows, "seconds": round(middle - begun, 1)},
        "dense": {
            "parameters": n_numbers(twin),
            "steps": steps,
            "tokens": steps * run.rows * run.row_tokens,
            "held_out_loss": loss,
            "bits_per_byte": corpus.bits_per_byte(loss),
            "forward_flop_per_row": twin_flop / run.rows,
            "seconds": round(time.perf_counter() - middle, 1),
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.training.mini_study", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="where the V4's run lives")
    parser.add_argument("--output", type=Path, default=RECORD)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums in another order are another run
    write_whole(chosen.output, json.dumps(run_study(mini(), RUN, chosen.folder), indent=1) + "\n")


if __name__ == "__main__":
    main()
