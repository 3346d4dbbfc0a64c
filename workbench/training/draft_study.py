"""Training DSpark on a network that stays as it is, and what its Markov head is worth: a recorded study.

    python -m workbench.training.draft_study

A language of words: four letters each, any word after any other. After a word's first letter the rest is
known; which word comes next is not. A block of five slots always crosses a boundary, so that a slot cannot
know which word was begun before it; the Markov head tells it the letter.

Loss: cross entropy of the slots, each given the text's own token before it, and for the confidence head of
whether the slot would be accepted, Σ min(p, q). Blocks start at drawn places, do not see each other and give
no gradient to the network.

Source: DeepSpec repository (June 2026) for the recipe; the confidence head's target is ours.
Axes: b rows, a anchors of a row, i slots, d hidden_size, v vocabulary.
"""

import argparse
import itertools
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.model.sampling import Sampling
from workbench.model.v41 import V41Config, V41Transformer, load_v41
from workbench.model.v41.speculative import generate_speculative
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.training.draft_study"
RECORD = FOLDER / "drafts.json"
SEEDS, DRAFTS = (0, 1, 2), ("with Markov head", "without")
LETTERS, WORDS, WORD = 48, 24, 4
ROWS, LENGTH, ANCHORS, RATE = 8, 48, 6, 4e-3
TRUNK_STEPS, DRAFT_STEPS = 200, 600
LEAST = (0.0, 0.2, 0.4, 0.6, 0.8)  # confidences below which a draft is cut
WARM = Sampling(temperature=1.0)


def study_config() -> V41Config:
    """Two layers that encode, two that decode, no memory, a draft of one block and five slots."""
    return load_v41("tiny-v4.1").replace(
        num_hidden_layers=4,
        compress_ratios=(0, 2, 1, 1, 0),
        num_nextn_predict_layers=1,
        kv_source_layer_ids=(1, 2),
        index_source_layer_ids=(1, 2),
        candidate_source_layer_id=2,
        dspark_target_layer_ids=(2, 3),
        dspark_markov_rank=16,
        engram_layer_ids=(),
    )


def words_of(seed: int) -> Tensor:
    """The language: (words, 4) letters."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LETTERS, (WORDS, WORD), generator=generator)


def texts(words: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Rows of words that begin anywhere in a word: (b, s)."""
    chosen = torch.randint(len(words), (rows, LENGTH // WORD + 1), generator=generator)
    first = int(torch.randint(WORD, (), generator=generator))
    return words[chosen].flatten(1)[:, first : first + LENGTH]


def draft_losses(
    model: V41Transformer, ids: Tensor, anchors: Tensor, *, markov: bool = True
) -> tuple[Tensor, Tensor]:
    """The slots' cross entropy and the confidence head's, over blocks that follow the anchors.

    Shapes: ids (b, s), anchors (a,), the last context token of each block, at least slots + 2 from the end.
    """
    slots, window = model.config.dspark_block_size, model.config.sliding_window
    with torch.no_grad():
        y, targets = model.hidden(ids)
        place = anchors[:, None] + 1 + torch.arange(slots)
        # Slot i guesses the token at anchor + 2 + i, the network guesses it one token earlier.
        p = model.lm_head(y[:, place]).softmax(dim=-1).flatten(0, 1)
        label, previous = ids[:, place + 1].flatten(0, 1), ids[:, place].flatten(0, 1)
        features = F.pad(targets, (0, 0, window, 0)).unfold(1, window, 1)[:, anchors + 1]
        features = features.movedim(-1, 2).flatten(0, 1)
    context = model.mtp.context(features, anchors.repeat(len(ids)))
    held = model.mtp(context, previous[:, 0], model.model.embed_tokens)
    logits = model.mtp.logits(held, previous, model.lm_head, markov=markov)
    accepted = torch.minimum(logits.detach().softmax(dim=-1), p).sum(dim=-1)
    sure = model.mtp.confidence(held.detach(), previous)
    return F.cross_entropy(logits.flatten(0, 1), label.flatten()), F.binary_cross_entropy_with_logits(
        sure, accepted
    )


def train_trunk(words: Tensor, seed: int, steps: int = TRUNK_STEPS) -> V41Transformer:
    """A network that speaks the language, with an untrained draft."""
    generator = torch.Generator().manual_seed(seed)
    model = V41Transformer(study_config(), generator=generator)
    trunk = [p for name, p in model.named_parameters() if not name.startswith("mtp.")]
    optimizer = torch.optim.AdamW(trunk, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(texts(words, ROWS, generator)).backward()
        optimizer.step()
    return model


def train_draft(
    model: V41Transformer, words: Tensor, seed: int, *, markov: bool, steps: int = DRAFT_STEPS
) -> list[float]:
    """Teach the draft alone; -> the slots' loss at each step."""
    generator, losses = torch.Generator().manual_seed(100 + seed), []
    optimizer = torch.optim.AdamW(model.mtp.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    last = LENGTH - model.config.dspark_block_size - 2
    for _ in range(steps):
        anchors = torch.randperm(last, generator=generator)[:ANCHORS]
        slots, sure = draft_losses(model, texts(words, ROWS, generator), anchors, markov=markov)
        optimizer.zero_grad()
        (slots + sure).backward()
        torch.nn.utils.clip_grad_norm_(model.mtp.parameters(), 1.0)
        optimizer.step()
        losses.append(slots.item())
    return losses


def acceptance(
    model: V41Transformer, words: Tensor, seed: int, *, markov: bool, tokens: int, least: float = 0.0
) -> dict[str, Any]:
    """How drafts fare in sampled text: accepted at each slot, tokens a pass, slots checked a pass."""
    generator = torch.Generator().manual_seed(200 + seed)
    prompt = texts(words, 1, generator)[:, :16]
    _, found = generate_speculative(
        model, prompt, tokens, sampling=WARM, generator=generator, markov=markov, least_confidence=least
    )
    return {
        "slots": [n / found.passes for n in found.accepted],
        "tokens_per_pass": found.tokens_per_pass,
        "checked_per_pass": sum(found.checked) / found.passes,
        "kept_share": found.kept_share,
    }


def run(draft: str, seed: int) -> dict[str, Any]:
    """One network and one draft."""
    words, markov = words_of(seed), draft == DRAFTS[0]
    model = train_trunk(words, seed)
    before = acceptance(model, words, seed, markov=markov, tokens=60)
    losses = train_draft(model, words, seed, markov=markov)
    after = {
        str(least): acceptance(model, words, seed, markov=markov, tokens=300, least=least) for least in LEAST
    }
    return {"before": before["tokens_per_pass"], "loss": losses[:: DRAFT_STEPS // 25], "after": after}


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """The recorded runs by (draft, seed)."""
    return Records(RECORD, COMMAND).by("draft", "seed")


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)  # sums in another order are another run
    records = Records(RECORD, COMMAND)
    for seed, draft in itertools.product(SEEDS, DRAFTS):
        found = records.get({"draft": draft, "seed": seed}, partial(run, draft, seed))
        for least, own in found["after"].items():
            print(draft, seed, f"cut below {least}: {own['tokens_per_pass']:.2f} tokens a pass", flush=True)


if __name__ == "__main__":
    main()
