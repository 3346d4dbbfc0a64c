"""From a base to a reasoning policy: R1-Zero, R1 and a specialist, each a few lines over the same parts.

    base        solutions with and without thinking, at the end mostly without: it can, but rarely does
    R1-Zero     reinforcement on the base, nothing else
    R1          cold start -> reinforcement with a language reward -> its own right answers -> reinforcement
    specialist  fine-tuning on one domain -> reinforcement on it (V4)

Every pipeline yields a row a step with the name of its stage, and goes on where it was killed: a stage that
is done only loads its last checkpoint.

Report: DeepSeek-R1 (arXiv 2501.12948), sections 2.2 and 2.3; V4 section 5.1.1.
"""

import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.model import Transformer
from workbench.reasoning.completions import Document, document, prompt_ids, read_completion, solved
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.grpo import Questions, RLRecipe, train_policy
from workbench.reasoning.losses import LOSSES
from workbench.reasoning.rewards import Rules, is_right, language_share
from workbench.reasoning.rollout import sample
from workbench.reasoning.tasks.problem import Family, Problem, draw_problems
from workbench.reasoning.vocabulary import CHINESE

Rows = Generator[dict[str, Any], None, None]

ZERO = RLRecipe(
    loss=LOSSES["DAPO"].replace(masks_truncated=False), rules=Rules(form_weight=0.1), max_new_tokens=24
)
"""GRPO with DAPO's average and clip, accuracy and a little form, no KL."""


def base(
    policy: Transformer,
    families: Sequence[Family],
    steps: int,
    *,
    rows: int = 8,
    thinking: float = 0.6,
    tilt_steps: int = 20,
    tilt_rate: float = 1e-3,
    tilted_thinking: float = 0.1,
    tilted_families: Sequence[Family] | None = None,
    chinese: float = 0.0,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Rows:
    """Teach a fresh policy to solve with and without steps; then tilt it towards answering at once.

    Args:
        rows: of a step, each packed with documents.
        thinking: the share of documents with steps; `tilted_thinking` that of the last `tilt_steps`.
        tilted_families: whose solutions the last steps show (say, of people in haste); the same if None.
        chinese: the share of digits in the steps that are written as Chinese numerals.
    """
    rng = random.Random(seed)
    both, tilted = (
        [
            _written(problem, rng, rng.random() < share, chinese)
            for family in own
            for problem in draw_problems(family, 8000 // len(own), seed)
        ]
        for own, share in ((families, thinking), (tilted_families or families, tilted_thinking))
    )
    yield from _named(
        "skills", fine_tune(policy, both, steps, rows=rows, seed=seed, folder=_at(folder, "skills"))
    )
    if tilt_steps:
        tilt = fine_tune(
            policy,
            tilted,
            tilt_steps,
            rate=tilt_rate,
            rows=rows,
            warmup_steps=5,
            seed=seed,
            folder=_at(folder, "tilt"),
        )
        yield from _named("tilt", tilt)


def r1_zero(
    policy: Transformer,
    families: Sequence[Family],
    steps: int,
    *,
    recipe: RLRecipe = ZERO,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Rows:
    """Reinforcement alone."""
    questions = Questions(families, seed)
    yield from _named("RL", train_policy(policy, questions, recipe, steps, folder=_at(folder, "rl")))


def specialist(
    policy: Transformer,
    family: Family,
    sft_steps: int,
    rl_steps: int,
    *,
    recipe: RLRecipe = ZERO,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Rows:
    """V4's specialist of one domain: fine-tuned on its solutions (as `base` writes them), then GRPO."""
    yield from base(policy, [family], sft_steps, seed=seed, folder=folder)
    yield from r1_zero(policy, [family], rl_steps, recipe=recipe, seed=seed, folder=folder)


def r1(
    policy: Transformer,
    family: Family,
    *,
    cold_steps: int = 40,
    rl_steps: int = 30,
    sft_steps: int = 40,
    final_steps: int = 10,
    n_cold: int = 400,
    n_sampled: int = 400,
    language_weight: float = 0.3,
    recipe: RLRecipe = ZERO,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Rows:
    """R1's four stages on one family.

    1. Cold start: few documents, all in one language. 2. Reinforcement; the share of that language in the
    thinking is added to the reward. 3. Fine-tuning on the policy's own answers that are right and
    readable. 4. Reinforcement again, at temperature 0.7 as in the paper.
    """
    rng = random.Random(seed)
    cold = [solved(problem, rng) for problem in draw_problems(family, n_cold, seed)]
    first = fine_tune(policy, cold, cold_steps, rate=1e-3, rows=8, seed=seed, folder=_at(folder, "1-cold"))
    yield from _named("1 cold start", first)
    spoken = replace(recipe, rules=replace(recipe.rules, language_weight=language_weight))
    second = train_policy(policy, Questions([family], seed), spoken, rl_steps, folder=_at(folder, "2-rl"))
    yield from _named("2 RL", second)
    own = rejection_sampled(policy, draw_problems(family, n_sampled, seed + 1), recipe, seed=seed)
    third = fine_tune(policy, own, sft_steps, rate=5e-4, rows=8, seed=seed, folder=_at(folder, "3-sft"))
    yield from _named("3 own answers", third)
    cooler = replace(spoken, sampling=replace(recipe.sampling, temperature=0.7))
    last = train_policy(
        policy, Questions([family], seed + 1), cooler, final_steps, folder=_at(folder, "4-rl")
    )
    yield from _named("4 RL", last)


def rejection_sampled(
    policy: Transformer, problems: Sequence[Problem], recipe: RLRecipe, *, answers: int = 4, seed: int = 0
) -> list[Document]:
    """The policy's own answers to learn from: for each problem the first that is right and in one language.

    Raises:
        ValueError: no answer to any problem qualifies.
    """
    was_training = policy.training
    policy.eval()
    prompts = [prompt_ids(problem, recipe.system) for problem in problems]
    drawn = sample(policy, prompts, answers, recipe.max_new_tokens, sampling=recipe.sampling, seed=seed)
    policy.train(was_training)
    kept: dict[int, Document] = {}
    for row, ids in enumerate(drawn.tokens):
        place, completion = row // answers, read_completion(ids)
        if place not in kept and is_right(problems[place], ids) and language_share(completion.thinking) == 1:
            assert completion.answer is not None
            kept[place] = document(prompts[place], completion.thinking, completion.answer)
    if not kept:
        raise ValueError(
            f"rejection_sampled: got no right answer among {len(drawn)}; needs one or more; train the policy "
            f"further first"
        )
    return list(kept.values())


def mixed_languages(text: str, rng: random.Random, share: float) -> str:
    """A text in which this share of the digits is written as Chinese numerals."""
    return " ".join(
        CHINESE[int(word)] if len(word) == 1 and word.isdecimal() and rng.random() < share else word
        for word in text.split()
    )


def _written(problem: Problem, rng: random.Random, thinks: bool, chinese: float) -> Document:
    solution = problem.solve(rng)
    thinking = mixed_languages(solution.thinking, rng, chinese) if chinese else solution.thinking
    return document(prompt_ids(problem), thinking if thinks else None, solution.answer)


def _named(stage: str, rows: Iterable[dict[str, Any]]) -> Rows:
    for row in rows:
        yield {"stage": stage, **row}


def _at(folder: str | Path | None, stage: str) -> Path | None:
    return None if folder is None else Path(folder) / stage
