"""A small V4 trained in a chosen arithmetic on a real text: what the studies of quantisation share.

AdamW, as in the report that made the claim about FP8 (V3, arXiv 2412.19437); the loop, the data order and
the indexers' loss are those of every other run.
"""

import math
import statistics
from collections.abc import Sequence
from pydoc_data.topics import topics

import torch

from workbench.config import CSA, HCA, SWA, ModelConfig, load_config
from workbench.model import Transformer
from workbench.quant.application import Calibration, apply
from workbench.quant.recipes import Recipe
from workbench.training import loop
from workbench.training.corpus import Corpus, load_corpus
from workbench.training.indexer_loss import indexers
from workbench.training.loader import Batch, Loader
from workbench.training.schedules import BatchRamp, LearningRate

VOCAB_SIZE, ROWS, ROW_TOKENS, HELD_OUT_TOKENS = 512, 4, 128, 256
FP32 = Recipe("fp32")  # rounds nothing


def study_config(vocab_size: int = VOCAB_SIZE) -> ModelConfig:
    """A V4 of 2 million parameters: one layer of each kind of attention, matrices of whole FP8 blocks."""
    return load_config("mini").replace(
        vocab_size=vocab_size, hidden_size=128, num_hidden_layers=3, num_nextn_predict_layers=0,
        layer_types=(SWA, CSA, HCA), compress_ratios=(0, 4, 16), num_hash_layers=1, sliding_window=32,
        num_attention_heads=4, head_dim=64, qk_rope_head_dim=32, q_lora_rank=128, o_lora_rank=64,
        index_n_heads=4, index_head_dim=32, index_topk=16, n_routed_experts=8, moe_intermediate_size=128,
        initializer_range=0.06,
    )  # fmt: skip


def fresh(seed: int, config: ModelConfig | None = None) -> Transformer:
    """An untrained network; the same for the same seed."""
    return Transformer(config or study_config(), generator=torch.Generator().manual_seed(seed))


def study_text() -> Corpus:
    """Python's language reference, which comes with every Python: another version has another text."""
    return load_corpus(VOCAB_SIZE, texts=topics.values(), held_out_share=0.1)


def held_out(corpus: Corpus, n_batches: int) -> list[Batch]:
    """The same batches of held-out rows for every network of a study."""
    loader = Loader(corpus.held_out, HELD_OUT_TOKENS, seed=0)
    return [loader.take(ROWS) for _ in range(n_batches)]


def train_under(
    model: Transformer,
    recipe: str | Recipe,
    documents: Sequence[Sequence[int]],
    steps: int,
    *,
    rate: float,
    seed: int,
    row_tokens: int = ROW_TOKENS,
) -> list[float]:
    """Train in place in a recipe's arithmetic, the rate falling to zero; returns each step's loss.

    The seed orders the text: two runs that share it read the same tokens in the same order.
    """
    schedule = LearningRate(
        rate, 0.0, warmup_steps=min(10, steps // 2), decay_steps=steps // 2, total_steps=steps
    )
    plan = loop.Recipe(schedule, BatchRamp(ROWS, ROWS, 0), micro_rows=ROWS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    with apply(model, recipe):
        rows = loop.train(model, Loader(documents, row_tokens, seed), plan, optimizers=[optimizer])
        return [row["loss"] for row in rows]


def loss_under(
    model: Transformer, recipe: str | Recipe, batches: Sequence[Batch], calibration: Calibration | None = None
) -> float:
    """The loss in a recipe's arithmetic, nats a predicted token."""
    with apply(model, recipe, calibration):
        return loop.mean_loss(model, batches)


def train_indexers(
    model: Transformer,
    documents: Sequence[Sequence[int]],
    steps: int,
    *,
    rate: float = 1e-2,
    seed: int = 0,
    row_tokens: int = HELD_OUT_TOKENS,
) -> list[float]:
    """Teach the indexers where attention looks when it reads every entry; returns each step's divergence.

    Nothing else of the network changes. Source: V3.2 report, the warm-up of the indexer.
    """
    own = [p for indexer in indexers(model).values() for p in indexer.parameters()]
    schedule = LearningRate(rate, rate, warmup_steps=0, decay_steps=0, total_steps=steps)
    plan = loop.Recipe(
        schedule, BatchRamp(ROWS, ROWS, 0), micro_rows=ROWS, bias_step=0, attention="dense", indexer="alone"
    )
    rows = loop.train(
        model, Loader(documents, row_tokens, seed), plan, optimizers=[torch.optim.AdamW(own, lr=rate)]
    )
    return [row["indexer_loss"] for row in rows]


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of independent runs and its 95% interval, by Student's t.

    Raises:
        ValueError: fewer than two runs.
    """
    from scipy import stats

    if len(values) < 2:
        raise ValueError(f"mean_interval: got {len(values)} runs; an interval takes two; run another seed")
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return mean, mean - reach, mean + reach
