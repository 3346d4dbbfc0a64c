"""A teacher behind a counter: texts out, no logits and no weights, and a bill. Who asks, and for what.

    users      what people ask: mostly one kind of question, mostly easy
    covering   every kind and level alike
    unsure     covering, but asks only where several answers of the own student disagree

A client pays for every token that the teacher wrote, also for steps that it is not shown, as providers bill.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from workbench.distillation.replies import REPLIES
from workbench.model import Transformer
from workbench.reasoning.completions import Document, prompt_ids, read_completion
from workbench.reasoning.rollout import sample
from workbench.reasoning.tasks import Family, Problem, draw_problems

CANDIDATES, VOTES = 2, 4  # of "unsure": problems looked at for one that is asked, and answers to each


@dataclass
class Interface:
    """Sampling alone. It counts what it sells.

    Args:
        reply: a name of `REPLIES`.
        most_queries: what it answers before it refuses.
    """

    teacher: Transformer
    reply: str = "whole"
    most_queries: int = 1_000_000
    max_new_tokens: int = 16
    seed: int = 0
    queries: int = 0
    prompt_tokens: int = 0
    written_tokens: int = 0
    shown_tokens: int = 0
    _rng: random.Random = field(default_factory=lambda: random.Random(0), repr=False)

    def ask(self, problems: Sequence[Problem]) -> list[Document]:
        """An answer to each: what the client sees, as texts to learn from.

        Raises:
            ValueError: an unknown kind of reply, or more queries than are left.
        """
        if self.reply not in REPLIES or self.queries + len(problems) > self.most_queries:
            raise ValueError(
                f"Interface: got {len(problems)} queries after {self.queries} with reply={self.reply!r}; "
                f"needs at most {self.most_queries} and one of {list(REPLIES)}; ask less or another way"
            )
        seed = self.seed * 1_000_003 + self.queries
        prompts = [prompt_ids(problem) for problem in problems]
        drawn = sample(self.teacher.eval(), prompts, 1, self.max_new_tokens, seed=seed)
        seen = [
            REPLIES[self.reply](prompt, tokens, self._rng)
            for prompt, tokens in zip(prompts, drawn.tokens, strict=True)
        ]
        self.queries += len(problems)
        self.prompt_tokens += sum(map(len, prompts))
        self.written_tokens += drawn.n_tokens
        self.shown_tokens += sum(map(len, seen))
        return [Document(prompt + own, len(prompt)) for prompt, own in zip(prompts, seen, strict=True)]

    def usd(self, per_million_prompt: float, per_million_output: float) -> float:
        """The bill so far at these list prices."""
        return (self.prompt_tokens * per_million_prompt + self.written_tokens * per_million_output) / 1e6


Choice = Callable[[Sequence[Family], int, int, Transformer], list[Problem]]
"""(families, count, seed, the student so far) -> the problems to ask."""


def as_users(families: Sequence[Family], count: int, seed: int, student: Transformer) -> list[Problem]:
    """The r-th family is asked with weight 1 / r², and its r-th level likewise."""
    rng = random.Random(seed)
    kinds = [(f, level) for f in families for level in f.levels]
    weights = [1 / (families.index(f) + 1) ** 2 / (f.levels.index(level) + 1) ** 2 for f, level in kinds]
    drawn = rng.choices(kinds, weights, k=count)
    return [
        draw_problems(f, 1, seed * 1_000_003 + i, levels=[level])[0] for i, (f, level) in enumerate(drawn)
    ]


def covering(families: Sequence[Family], count: int, seed: int, student: Transformer) -> list[Problem]:
    """Every family and level in turn."""
    kinds = [(f, level) for f in families for level in f.levels]
    random.Random(seed).shuffle(kinds)
    return [
        draw_problems(f, 1, seed * 1_000_003 + i, levels=[level])[0]
        for i, (f, level) in enumerate(kinds[i % len(kinds)] for i in range(count))
    ]


def unsure(families: Sequence[Family], count: int, seed: int, student: Transformer) -> list[Problem]:
    """Of twice as many, those where the student's own answers differ most."""
    problems = covering(families, CANDIDATES * count, seed, student)
    drawn = sample(student.eval(), [prompt_ids(p) for p in problems], VOTES, 16, seed=seed)
    answers = [read_completion(tokens).answer for tokens in drawn.tokens]
    differing = [len(set(answers[i * VOTES : (i + 1) * VOTES])) for i in range(len(problems))]
    order = sorted(range(len(problems)), key=lambda i: -differing[i])
    return [problems[i] for i in order[:count]]


CHOICES: dict[str, Choice] = {"users": as_users, "covering": covering, "unsure": unsure}
