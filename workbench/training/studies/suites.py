"""Which attention has which ability, by synthetic suites. A network learns one of them.

    needles           the value of a key far back, among other keys: exact retrieval
    copy and topic    what stood a fixed distance before; which of four topics most words belong to, the gist

Needles lie up to 48 tokens back in training; windows of 8 tokens hand at most 21 upwards. Rows hold packed
documents, and only answers carry loss.

Report: section 2 (why both compressions) and section 2.3.3 (why a window).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.config import ModelConfig
from workbench.model import Transformer
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.schedules import BatchRamp, LearningRate
from workbench.training.studies.meters import blocks
from workbench.training.studies.variants import (
    ATTENTIONS,
    BIAS_STEP,
    ROW_TOKENS,
    base_config,
    build,
    optimizers,
    row_flop,
    steps_of,
)
from workbench.training.tasks import LocalCopy, Needles, Sample, Topic, draw_samples, score

VOCABULARY = 64
NEEDLES = Needles(
    n_needles=3, n_questions=1, haystack_tokens=12, distance=0, n_keys=8, n_values=8, n_fillers=4
)
COUNTS = (1, 2, 3)  # of needles in training: with three from the start none is found for hundreds of steps
COPY, TOPIC = LocalCopy(length=6), Topic()  # a copy's answer lies within a window
DISTANCES = (0, 8, 16, 24, 32, 40, 48)
FAR = DISTANCES[3:]  # beyond what windows hand upwards
NEEDLE_SUITE, OTHER_SUITE = "needles", "copy and topic"
STEPS = {NEEDLE_SUITE: 320, OTHER_SUITE: 60}
RUNS = (
    *(f"{NEEDLE_SUITE}: {name}" for name in ("base", "HCA only", "dense", "CSA only")),
    *(f"{OTHER_SUITE}: {name}" for name in ("base", "HCA only", "no window")),
)
"""What is recorded: each suite with the networks that a claim is about or that are seen beside them."""
ROWS, RATE, BLOCK = 8, 2e-2, 10
N_DOCUMENTS, N_ASKED = 9000, 96
WINDOW = 8


def suite_config() -> ModelConfig:
    """The base, with a window that needles lie beyond."""
    return base_config(VOCABULARY).replace(sliding_window=WINDOW)


def shifted(sample: Sample, by: int) -> Sample:
    """The same document with ids of its own."""
    return Sample([token + by for token in sample.ids], sample.answers)


def needle_documents(
    count: int, seed: int, distances: Sequence[int], counts: Sequence[int], *, is_held_out: bool = False
) -> list[Sample]:
    """As many of every distance and number of needles, with as many questions as needles in training.

    Held-out documents ask once, so that no earlier answer stands nearby to copy from.
    """
    own = max(count // (len(distances) * len(counts)), 1)
    return [
        sample
        for distance in distances
        for n in counts
        for sample in draw_samples(
            replace(
                NEEDLES,
                n_needles=n,
                n_questions=1 if is_held_out else n,
                haystack_tokens=4 * n,
                distance=distance,
            ),
            own,
            seed,
            is_held_out=is_held_out,
        )
    ]


def copy_and_topic(count: int, seed: int, *, is_held_out: bool = False) -> dict[str, list[Sample]]:
    """Twice as many copies, which are short, as topics."""
    begin = {"copy": NEEDLES.vocab_size, "topic": NEEDLES.vocab_size + COPY.vocab_size}
    drawn = {
        "copy": draw_samples(COPY, 2 * count, seed, is_held_out=is_held_out),
        "topic": draw_samples(TOPIC, count, seed, is_held_out=is_held_out),
    }
    return {name: [shifted(sample, begin[name]) for sample in found] for name, found in drawn.items()}


def documents_of(suite: str, seed: int) -> list[Sample]:
    """What a network of this suite learns from."""
    if suite == NEEDLE_SUITE:
        return needle_documents(N_DOCUMENTS, seed, DISTANCES, COUNTS)
    return [sample for found in copy_and_topic(N_DOCUMENTS // 6, seed).values() for sample in found]


def needle_accuracy(model: Transformer, distances: Sequence[int], n_asked: int = N_ASKED) -> dict[str, float]:
    """Right answers to single questions about one of three needles, by distance."""
    return {
        str(distance): round(
            score(model, needle_documents(n_asked, 0, [distance], COUNTS[-1:], is_held_out=True)).accuracy, 4
        )
        for distance in distances
    }


def run_suites(run: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train one kind of attention on one suite, "suite: attention", and ask it."""
    suite, name = run.split(": ")
    variant = ATTENTIONS[name]
    small = {"sliding_window": WINDOW, **variant.config}
    model = build(replace(variant, config=small), VOCABULARY, seed)
    steps = steps_of(variant, model.config, suite_config(), steps or STEPS[suite])
    documents = documents_of(suite, seed)
    loader = Loader([d.ids for d in documents], ROW_TOKENS, seed, [d.labels for d in documents])
    recipe = Recipe(
        LearningRate(RATE, RATE / 10, steps // 16, steps // 3, steps),
        BatchRamp(ROWS, ROWS, 0),
        micro_rows=ROWS,
        bias_step=BIAS_STEP,
    )
    losses = [row["loss"] for row in train(model, loader, recipe, optimizers=optimizers(variant, model))]
    model.eval()
    found = {"steps": steps, "flop": 3 * row_flop(model.config) * ROWS * steps, "loss": blocks(losses, BLOCK)}
    if suite == NEEDLE_SUITE:
        return {**found, "needles": needle_accuracy(model, DISTANCES)}
    others = copy_and_topic(N_ASKED, 0, is_held_out=True)
    return {**found, **{task: round(score(model, samples).accuracy, 4) for task, samples in others.items()}}
