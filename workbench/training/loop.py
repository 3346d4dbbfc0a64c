"""The training loop: every notebook and every rank runs this one.

A run is a model, a loader and a recipe. It yields one row of numbers a step; what to do with them (a
table, a picture, a progress bar) is the caller's. Killed at any point and started again with the same
arguments, it goes on from its last checkpoint as if nothing had happened, to the bit.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.model import Transformer
from workbench.model.loss import IGNORED
from workbench.training.anticipatory import AnticipatoryRouting
from workbench.training.indexer_loss import attention_inputs, every_entry, indexer_loss
from workbench.training.loader import Batch, Loader
from workbench.training.parameter_groups import make_optimizers
from workbench.training.ranks import ALONE, Ranks
from workbench.training.routing import Routing
from workbench.training.run_state import Part, RunState, restore, save
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.spikes import SpikeDetector


@dataclass(frozen=True)
class Recipe:
    """How to train: what must not change when a run is resumed.

    Args:
        batch: rows of a step.
        micro_rows: rows of one forward pass; a step adds up the gradients of several.
        clip_norm: the largest norm of all gradients together.
        bias_step, balance_weight: of the two balance rules of the experts.
        precision: "bf16" runs matrix products in bf16 under autocast, with fp32 weights.
        attention: "dense" lets CSA layers read every visible entry instead of those selected.
        indexer: whether the indexers learn by `indexer_loss`: not at all, beside the rest, or alone, all
            else frozen (the warm-up before selection begins).
    """

    rate: LearningRate
    batch: BatchRamp
    micro_rows: int = 8
    clip_norm: float = 1.0
    bias_step: float = 1e-3
    balance_weight: float = 1e-4
    precision: Literal["fp32", "bf16"] = "fp32"
    attention: Literal["sparse", "dense"] = "sparse"
    indexer: Literal["off", "beside", "alone"] = "off"


def train(
    model: Transformer,
    loader: Loader,
    recipe: Recipe,
    *,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 100,
    anticipatory: AnticipatoryRouting | None = None,
    detector: SpikeDetector | None = None,
    ranks: Ranks = ALONE,
) -> Generator[dict[str, Any], None, None]:
    """Train in place and yield each step's numbers; resume from `folder` if it holds a checkpoint.

    A row has step, tokens (predicted so far), loss (nats a token, without the balance and MTP terms'
    weights: as `model.loss` with the recipe's MTP weight), grad_norm, learning_rate, largest_load and
    tokens_per_s; indexer_loss where the indexers learn, is_anticipatory and is_spike where asked for.
    Between two rows the model attends as it is trained, densely if the recipe says so.

    Args:
        optimizers: the report's Muon and AdamW if None.
        ranks: the processes that run this loop together, each with the same arguments; then the model is
            one that `distributed.shard` has cut.
        folder: where checkpoints go; none are written if None. The last two are kept.
        anticipatory: routes the steps it covers by older weights. It and the detector may change between
            a run and its resumption.
        detector: judges every loss.

    Raises:
        ValueError: the checkpoint is of another configuration, recipe or data, or is damaged; rows longer
            than the model reads; or what several processes do not do yet.
        FloatingPointError: the loss or the gradient is not finite; the model is left as it was before
            the step.
    """
    _check(model, loader, recipe, anticipatory, ranks)
    if optimizers is None:
        optimizers = make_optimizers(model, recipe.rate.peak, muon=ranks.muon)
    given: dict[str, Part | None] = {"anticipatory": anticipatory, "detector": detector}
    parts = {name: part for name, part in given.items() if part is not None}
    what = identity(model, loader, recipe, optimizers)
    state = RunState(model, optimizers, loader, what, parts=parts, ranks=ranks)
    if folder is not None:
        restore(state, Path(folder))
    model.train()
    with (
        Routing(model, ranks) as routing,
        every_entry(model) if recipe.attention == "dense" else nullcontext(),
    ):
        while state.step < recipe.rate.total_steps:
            begun = time.perf_counter()
            row, tokens = _step(state, recipe, routing, anticipatory)
            if detector is not None:
                row["is_spike"] = detector.note(row["loss"])
            state.step += 1
            state.tokens += tokens
            if folder is not None and (
                state.step % checkpoint_every == 0 or state.step == recipe.rate.total_steps
            ):
                save(state, Path(folder))
            speed = tokens / (time.perf_counter() - begun)
            yield {"step": state.step, "tokens": state.tokens, **row, "tokens_per_s": speed}


def _check(
    model: Transformer,
    loader: Loader,
    recipe: Recipe,
    anticipatory: AnticipatoryRouting | None,
    ranks: Ranks,
) -> None:
    row_tokens, longest = loader.rows.input_ids.shape[1], model.v4.max_position_embeddings
    if row_tokens > longest:
        raise ValueError(
            f"train: got rows of {row_tokens} tokens; the model reads at most max_position_embeddings="
            f"{longest}; pack shorter rows or replace() the configuration"
        )
    largest = int(loader.rows.input_ids.max())
    if largest >= model.v4.vocab_size:
        raise ValueError(
            f"train: got token id {largest}; the model's vocab_size={model.v4.vocab_size} ends below it; "
            f"tokenise with the tokenizer that the model is for"
        )
    if ranks.n_ranks > 1 and (anticipatory is not None or recipe.indexer != "off"):
        raise ValueError(
            f"train: got indexer={recipe.indexer!r} and anticipatory="
            f"{'on' if anticipatory is not None else None} on {ranks.n_ranks} processes; several processes "
            f"train without either so far; train that stage in one process"
        )


def identity(
    model: Transformer, loader: Loader, recipe: Recipe, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed. The rate is the recipe's; cuts may change."""
    data = {
        "rows": len(loader),
        "row_tokens": loader.rows.input_ids.shape[1],
        "seed": loader.seed,
        "checksum": loader.checksum,
    }
    # torch adds "differentiable" when it loads a state.
    options = [
        {name: value for name, value in optimizer.defaults.items() if name not in ("lr", "differentiable")}
        for optimizer in optimizers
    ]
    return {"model": model.config.to_dict(), "recipe": asdict(recipe), "data": data, "optimizers": options}


def _step(
    state: RunState, recipe: Recipe, routing: Routing, anticipatory: AnticipatoryRouting | None
) -> tuple[dict[str, Any], int]:
    model, step = state.model, state.step
    row: dict[str, Any] = {"loss": 0.0}
    if anticipatory is not None:
        row["is_anticipatory"] = anticipatory.covers(step)
        with routing.paused():
            anticipatory.prepare(step, lambda later: _read_ahead(state, recipe, later))

    batch = state.loader.take(recipe.batch(step))
    total, begin = n_predicted(batch), 0
    for micro in _micro_batches(state.ranks.own_rows(batch), recipe, model.device):
        rows = len(micro.input_ids)
        share, row_share = n_predicted(micro) / total, rows / len(batch.input_ids)
        routed = anticipatory.routed(step, begin, rows) if anticipatory is not None else nullcontext()
        with routed, attention_inputs(model) as seen:
            with torch.no_grad() if recipe.indexer == "alone" else nullcontext():
                part = _language_loss(model, micro, recipe, step)
            # By predicted tokens; the MTP term, whose targets are one fewer a sample, is shared out alike.
            objective = share * part + recipe.balance_weight * row_share * routing.balance_loss(rows)
            if recipe.indexer != "off":
                own = row_share * indexer_loss(seen)
                row["indexer_loss"] = row.get("indexer_loss", 0.0) + own.item()
                objective = objective + own
            objective.backward()
        row["loss"] += share * part.item()
        begin += rows

    row["loss"] = float(state.ranks.total(torch.tensor(row["loss"], dtype=torch.float64)))
    norm = state.ranks.clip(model, recipe.clip_norm)
    if not math.isfinite(norm) or not math.isfinite(row["loss"]):
        model.zero_grad()  # what tries again must not add to it
        raise FloatingPointError(
            f"train: step {step + 1} has loss {row['loss']} and gradient norm {norm}; both must be finite; "
            f"go back to a checkpoint with a lower rate"
        )
    rate = recipe.rate(step)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    largest = routing.update_biases(0.0 if recipe.indexer == "alone" else recipe.bias_step)
    return {**row, "grad_norm": norm, "learning_rate": rate, "largest_load": largest}, total


def _language_loss(model: Transformer, micro: Batch, recipe: Recipe, step: int) -> Tensor:
    with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        return model.loss(
            micro.input_ids,
            labels=micro.labels,
            sample_ids=micro.sample_ids,
            mtp_weight=recipe.rate.mtp_weight(step),
        )


def _read_ahead(state: RunState, recipe: Recipe, later: int) -> None:
    """Run a later step's batch through today's model, for its routers to be watched."""
    ahead = sum(recipe.batch(step) for step in range(state.step, later))
    batch = state.loader.peek(recipe.batch(later), ahead)
    for micro in _micro_batches(state.ranks.own_rows(batch), recipe, state.model.device):
        _language_loss(state.model, micro, recipe, later)


def _micro_batches(batch: Batch, recipe: Recipe, device: torch.device) -> Iterator[Batch]:
    for parts in zip(*(x.split(recipe.micro_rows) for x in batch), strict=True):
        yield Batch(*(x.to(device) for x in parts))


def n_predicted(batch: Batch) -> int:
    """How many tokens of a batch are predicted: not the first of a sample, not padding."""
    follows = batch.sample_ids[:, 1:] == batch.sample_ids[:, :-1]
    return int((follows & (batch.labels[:, 1:] != IGNORED)).sum())


def mean_loss(model: Transformer, batches: Sequence[Tensor | Batch], ranks: Ranks = ALONE) -> float:
    """The loss in nats a predicted token over held-out batches, without gradients.

    Raises:
        ValueError: no token is predicted.
    """
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            if isinstance(batch, Tensor):
                batch = Batch(batch, torch.zeros_like(batch), batch)
            count += n_predicted(batch)
            own = Batch(*(x.to(model.device) for x in ranks.own_rows(batch)))
            part = model.loss(own.input_ids, labels=own.labels, sample_ids=own.sample_ids)
            total += n_predicted(own) * part.item()
    model.train(was_training)
    if not count:
        raise ValueError(
            f"mean_loss: got {len(batches)} batches without a predicted token; needs samples of two tokens "
            f"or more; give other batches"
        )
    return float(ranks.total(torch.tensor(total, dtype=torch.float64))) / count
