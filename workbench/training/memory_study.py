"""What a memory of n-grams is worth where there is something to memorise: a recorded study.

    python -m workbench.training.memory_study

A text of facts: two symbols, which together name a subject, then its answer. Answers are drawn once and obey
no rule, so that they can only be stored. One network has an Engram. Two have none, and experts instead: wider
ones, until a token passes as many parameters; or wider and more, until there are as many in all.

Source: the comparison at equal parameters and equal work is that of arXiv 2601.07372, at toy size and ours.
Axes: b rows, s tokens.
"""

import argparse
import itertools
from functools import partial
from typing import Any

import torch
from torch import Tensor

from workbench.model.layout import Layout
from workbench.model.v41 import V41Config, V41Transformer, load_v41
from workbench.model.v41.counts import MEMORY, active, parameters
from workbench.model.v41.engram import Engram
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.training.memory_study"
RECORD = FOLDER / "memory.json"
MODELS = ("memory", "wider experts", "wider and more experts")
SEEDS, RATES, STEPS = (0, 1, 2, 3), (2e-3, 4e-3), 200
SYMBOLS, ROWS, FACTS_IN_A_ROW = 60, 8, 24
FACTS, TABLE_FACTOR = 1000, 5  # the release, too, learns its tables five times as fast


def study_config(model: str) -> V41Config:
    """Two layers that encode and two that decode, with a memory or with experts in its place.

    Raises:
        ValueError: an unknown model.
    """
    if model not in MODELS:
        raise ValueError(f"study_config: model is {model!r}; choose one of {MODELS}")
    small = load_v41("tiny-v4.1").replace(
        num_hidden_layers=4,
        compress_ratios=(0, 2, 1, 1, 0),
        num_nextn_predict_layers=1,
        kv_source_layer_ids=(1, 2),
        index_source_layer_ids=(1, 2),
        candidate_source_layer_id=2,
        dspark_target_layer_ids=(3,),
        num_experts_per_tok=2,
        engram_layer_ids=(1,),
        engram_max_ngram_size=3,
        engram_vocab_size=2000,
    )
    if model == "memory":
        return small
    wider = small.replace(engram_layer_ids=())
    while active(wider, "decode") < active(small, "decode", memory=True):
        wider = wider.replace(moe_intermediate_size=wider.moe_intermediate_size + 1)
    while model == "wider and more experts" and all_of(wider) < all_of(small):
        wider = wider.replace(n_routed_experts=wider.n_routed_experts + 1)
    return wider


def all_of(config: V41Config) -> int:
    """Parameters with the memory, without the draft."""
    return sum(n for part, n in parameters(config).items() if part != "draft")


def table_of(n_facts: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of symbols, no two alike, and an answer for each: (facts, 2), (facts,)."""
    pairs = torch.randperm(SYMBOLS**2, generator=generator)[:n_facts]
    answers = torch.randint(SYMBOLS, (n_facts,), generator=generator)
    return torch.stack((pairs // SYMBOLS, pairs % SYMBOLS), dim=1), answers


def texts(table: tuple[Tensor, Tensor], rows: int, generator: torch.Generator) -> Tensor:
    """Rows of facts in random order: (b, s), every third token an answer."""
    pairs, answers = table
    chosen = torch.randint(len(pairs), (rows, FACTS_IN_A_ROW), generator=generator)
    return torch.cat((pairs[chosen], answers[chosen].unsqueeze(-1)), dim=-1).flatten(1)


@torch.no_grad()
def recall(model: V41Transformer, ids: Tensor) -> float:
    """The share of answers that are the network's first choice."""
    guessed = model(ids)[:, 1::3].argmax(dim=-1)
    return float((guessed == ids[:, 2::3]).float().mean())


@torch.no_grad()
def gates(model: V41Transformer, ids: Tensor) -> Tensor:
    """How far the first memory opens for each token and stream of one text: (1, s) -> (s, n).

    Raises:
        ValueError: the network has no memory.
    """
    trunk, (number, *_) = model.model, (*model.config.engram_layer_ids, None)
    if number is None:
        raise ValueError("gates: the network has no memory; take the one called 'memory'")
    positions = torch.arange(ids.shape[1])[None]
    layout = Layout(trunk.rotary_emb, positions, 1, model.config.sliding_window, model.dtype)
    carry, tokens = trunk.begin(ids)
    carry = trunk.run(range(number), carry, tokens, layout)
    memory = trunk.layers[number].engram
    assert isinstance(memory, Engram)
    return memory.recall(carry.streams, tokens.ngrams)[0][0, ..., 0]


def gate_rows(
    model: V41Transformer, table: tuple[Tensor, Tensor], generator: torch.Generator, rows: int = 20
) -> list[dict[str, Any]]:
    """The gates' mean over streams, place by place of a fact; and where a pair names no subject.

    -> {"place", "gate"}, many a place.
    """
    facts, places = {tuple(pair) for pair in table[0].tolist()}, ("A", "B, a known fact", "c")
    found = []
    for _ in range(rows):
        ids = texts(table, 1, generator)
        mean = gates(model, ids).mean(dim=-1).tolist()
        found += [{"place": places[i % 3], "gate": gate} for i, gate in enumerate(mean)]
        other = ids.clone().view(-1, 3)
        other[:, :2] = torch.randint(SYMBOLS, (len(other), 2), generator=generator)
        mean = gates(model, other.view(1, -1)).mean(dim=-1)[1::3].tolist()
        found += [
            {"place": "B, no fact", "gate": gate}
            for pair, gate in zip(other[:, :2].tolist(), mean, strict=True)
            if tuple(pair) not in facts
        ]
    return found


def new_model(name: str, seed: int) -> V41Transformer:
    """A fresh network of the study."""
    return V41Transformer(study_config(name), generator=torch.Generator().manual_seed(seed))


def train(
    name: str, rate: float, seed: int, steps: int = STEPS, points: int = 8
) -> tuple[V41Transformer, dict[str, Any]]:
    """One training: the network, recall on the way, and what it is made of."""
    generator = torch.Generator().manual_seed(1000 + seed)  # the same texts for every network
    table, model = table_of(FACTS, generator), new_model(name, seed)
    tables = {id(p) for key, p in model.named_parameters() if "engram.embedding" in key}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in tables], "lr": rate},
        {"params": [p for p in model.parameters() if id(p) in tables], "lr": rate * TABLE_FACTOR},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.95), weight_decay=0.0)
    probe, curve = texts(table, 24, generator), []
    for step in range(1, steps + 1):
        ids = texts(table, ROWS, generator)
        y, _ = model.hidden(ids)
        logits = model.lm_head(y[:, 1::3]).flatten(0, 1)  # questions have no answer in the text
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 2::3].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step * points // steps > (step - 1) * points // steps:
            curve.append({"step": step, "recall": recall(model, probe), "loss": loss.item()})
    parts = parameters(model.config)
    return model, {
        "curve": curve,
        "recall": curve[-1]["recall"],
        "active": active(model.config, "decode", memory=True),
        "all": all_of(model.config),
        "memory": sum(parts[part] for part in MEMORY),
    }


def results(name: str, rate: float, seed: int) -> dict[str, Any]:
    """A training's results without its network, as they are recorded."""
    return train(name, rate, seed)[1]


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """The recorded runs by (model, rate, seed)."""
    return Records(RECORD, COMMAND).by("model", "rate", "seed")


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)  # sums in another order are another run
    records = Records(RECORD, COMMAND)
    for seed, rate, model in itertools.product(SEEDS, RATES, MODELS):
        key = {"model": model, "rate": rate, "seed": seed}
        found = records.get(key, partial(results, model, rate, seed))
        print(key, f"recall {found['recall']:.3f}, {found['active']:,} of {found['all']:,}", flush=True)


if __name__ == "__main__":
    main()
