"""Reinforcement learning beside TRL's GRPOTrainer: the same V4 weights, questions and reward, one thread.

Twice: with answers of a fixed length, so that both draw and learn from the same number of tokens, and as
a run really begins, from a base whose answers end when they end. TRL's policy is transformers' V4 class,
its tokenizer our words; it runs in this process, in turns with ours.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks.timing import of_steps, side_by_side
from workbench.model import Transformer
from workbench.reasoning.completions import prompt_ids
from workbench.reasoning.grpo import Questions, RLRecipe, train_policy
from workbench.reasoning.pipelines import ZERO, base
from workbench.reasoning.policy import new_policy
from workbench.reasoning.rewards import Rules
from workbench.reasoning.rollout import Rollouts, sample
from workbench.reasoning.tasks import Addition, Parity, Problem
from workbench.reasoning.tasks.problem import Family
from workbench.reasoning.vocabulary import BOS, END, PAD, VOCABULARY

QUESTIONS, GROUP, NEW_TOKENS, STEPS = 16, 16, 24, 3

PLAIN: dict[str, Any] = dict(
    learning_rate=3e-4, temperature=1.0, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
    save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=0,
)  # fmt: skip
"""Settings of TRL's trainers that keep them to the work."""


def half_of_the_words(problem: Problem, ids: Sequence[int]) -> bool:
    """A reward about half the answers of fresh weights earn, so that no group is dead."""
    return ids[0] < len(VOCABULARY) // 2


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: a policy on a family, by a recipe; `goes_on` lets no answer end before its limit."""

    name: str
    policy: Transformer
    family: Family
    recipe: RLRecipe
    goes_on: bool

    @property
    def problems(self) -> list[Problem]:
        """What our run asks, step by step."""
        return Questions([self.family], 0).take(QUESTIONS * (STEPS + 1))


def cases() -> list[Case]:
    """Fresh weights on sums; a base that knows parities (half a minute of training)."""
    recipe = dataclasses.replace(ZERO, questions=QUESTIONS, group_size=GROUP, max_new_tokens=NEW_TOKENS)
    fixed = dataclasses.replace(recipe, rules=Rules(verifier=half_of_the_words))
    learnt = new_policy(0)
    for _ in base(learnt, [Parity()], 200):
        pass
    return [
        Case(f"answers of {NEW_TOKENS} tokens", new_policy(0), Addition(), fixed, goes_on=True),
        Case(f"parity as a run begins, at most {NEW_TOKENS} tokens", learnt, Parity(), recipe, goes_on=False),
    ]


def peer_of(policy: Transformer) -> torch.nn.Module:
    """transformers' V4 with the same weights."""
    values = {k: v for k, v in policy.config.to_dict().items() if k != "model_type"}
    config = transformers.DeepseekV4Config(**values, attn_implementation="eager")
    config.num_experts = policy.config.n_routed_experts  # the name by which TRL asks for it
    peer = transformers.DeepseekV4ForCausalLM(config)
    peer.load_state_dict(policy.state_dict())
    return peer


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Our words as a transformers tokenizer."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY.words)}, unk_token=PAD))
    words.pre_tokenizer = WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BOS, eos_token=END, pad_token=PAD, padding_side="left"
    )


def rollouts(case: Case, peer: torch.nn.Module) -> dict[str, Any]:
    """Drawing 16 answers to each of 16 questions."""
    prompts = [prompt_ids(problem) for problem in case.problems[:QUESTIONS]]
    ids = torch.tensor(prompts)

    def theirs() -> None:
        with torch.no_grad():
            peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                num_return_sequences=GROUP,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS if case.goes_on else 1,
                pad_token_id=VOCABULARY.id(PAD),
            )

    def ours() -> Rollouts:
        return sample(case.policy, prompts, GROUP, NEW_TOKENS, stop_tokens=[] if case.goes_on else None)

    times = side_by_side(ours, theirs, repeats=3)
    tokens = ours().n_tokens
    return {
        "measure": f"rollouts, {case.name}: {tokens} tokens",
        **times,
        "ours_tokens_per_s": tokens / times["ours_s"],
    }


class StepTimes(transformers.TrainerCallback):
    """Notes when each step of a trainer ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def trl_step_s(case: Case, peer: torch.nn.Module) -> list[float]:
    """Seconds of TRL's steps after the first."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    asked = {VOCABULARY.decode(prompt_ids(problem)): problem for problem in case.problems}

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        pairs = zip(prompts, completion_ids, strict=True)
        return [case.recipe.rules.score(asked[prompt], ids).reward for prompt, ids in pairs]

    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=QUESTIONS * GROUP,
            num_generations=GROUP,
            max_completion_length=NEW_TOKENS,
            beta=0.0,
            loss_type="dapo",
            epsilon_high=0.28,
            max_steps=STEPS + 1,
            **PLAIN,
        )
        watch = StepTimes()
        trainer = GRPOTrainer(
            peer,
            reward_funcs=reward,
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": list(asked)}),
            processing_class=tokenizer(),
            callbacks=[watch],
        )
        trainer.train()
    return [end - begin for begin, end in pairwise(watch.times)]


def our_step_s(case: Case) -> list[float]:
    """Seconds of our steps after the first."""
    times = [time.perf_counter()]
    for _ in train_policy(case.policy, Questions([case.family], 0), case.recipe, STEPS + 1):
        times.append(time.perf_counter())
    return [end - begin for begin, end in pairwise(times[1:])]


def measured(case: Case) -> list[dict[str, Any]]:
    """A row for drawing, a row for the whole step."""
    peer = peer_of(case.policy)
    case.policy.eval()
    drawing = rollouts(case, peer.eval())
    theirs = trl_step_s(case, peer.train())
    return [
        drawing,
        {
            "measure": f"GRPO step, {QUESTIONS} questions x {GROUP} answers, {case.name}",
            **of_steps(our_step_s(case), theirs),
        },
    ]


def run() -> list[dict[str, Any]]:
    """One row a measurement; ratio is TRL's (transformers') time over ours."""
    transformers.logging.set_verbosity_error()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for case in cases() for row in measured(case)]
    finally:
        torch.set_num_threads(threads)
