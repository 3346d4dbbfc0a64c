"""Where merging is tried: specialists that agree, specialists that contradict each other, a small student.

A scene is a base, teachers made from it (or, for the small student, from a larger network), and the work that
this took. Every method of `merging` starts from the same scene.

Report: V4 section 5.1.1 for how specialists are made; DeepSeek-R1 (arXiv 2501.12948), section 2.4 for small
students.
"""

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workbench import accounting
from workbench.config import ModelConfig
from workbench.distillation.distil import Teacher
from workbench.distillation.domains import conflicting_chains
from workbench.model import Transformer
from workbench.reasoning.completions import Document, solved
from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.fine_tuning import fine_tune
from workbench.reasoning.grpo import train_policy
from workbench.reasoning.measures import Interval
from workbench.reasoning.pipelines import ZERO
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.recipe import Questions, RLRecipe
from workbench.reasoning.tasks import Addition, Family, ModularChain, Parity, draw_problems

TWO_LAYERS: dict[str, object] = dict(
    num_hidden_layers=2,
    layer_types=["sliding_attention", "compressed_sparse_attention"],
    compress_ratios=[0, 4],
)
ROW_TOKENS, ROWS = 96, 8


@dataclass
class Scene:
    """A base, its teachers by name, and the work (FLOP) that their two stages of training took."""

    families: Sequence[Family]
    base: Transformer
    teachers: Mapping[str, Teacher]
    recipe: RLRecipe
    sft_flop: float = 0.0
    rl_flop: float = 0.0

    def scores(self, policy: Transformer, n_test: int, seed: int = 1) -> dict[str, Interval]:
        """Held-out accuracy on every domain."""
        return {family.name: self.score(policy, family, n_test, seed) for family in self.families}

    def score(self, policy: Transformer, family: Family, n_test: int, seed: int = 1) -> Interval:
        problems = draw_problems(family, n_test, seed, is_held_out=True)
        most = self.recipe.max_new_tokens
        return evaluate(policy, problems, answers=2, max_new_tokens=most, seed=seed).accuracy


def agreeing(*, base_steps: int = 700, sft_steps: int = 120, rl_steps: int = 8, seed: int = 0) -> Scene:
    """Parity, chains and sums: they do not get in each other's way."""
    families: list[Family] = [
        Parity(bits=6, levels=(5, 6)),
        ModularChain(modulus=5, operations=3, levels=(2, 3)),
        Addition(digits=3, levels=(2, 3)),
    ]
    recipe = replace(ZERO, max_new_tokens=16, questions=8)
    return _specialists(families, recipe, base_steps, sft_steps, rl_steps, seed)


def contradicting(
    *, domains: int = 12, base_steps: int = 800, sft_steps: int = 80, rl_steps: int = 4, seed: int = 0
) -> Scene:
    """Domains that look alike and follow different rules."""
    recipe = replace(ZERO, max_new_tokens=12, questions=8)
    return _specialists(conflicting_chains(domains), recipe, base_steps, sft_steps, rl_steps, seed)


def small_student(
    *, teacher_steps: int = 300, student_steps: int = 150, width: int = 32, seed: int = 0
) -> Scene:
    """One skilled teacher, and a dense student of half its width that has begun to learn the same."""
    family = ModularChain(modulus=5, operations=3, levels=(2, 3))
    own = documents([family], 4000, seed)
    teacher = trained(new_policy(seed), own, teacher_steps, seed)
    dense = policy_config(width, **TWO_LAYERS, n_routed_experts=1, num_experts_per_tok=1)
    student = trained(new_policy(seed + 1, dense), own, student_steps, seed)
    teachers = {"teacher": Teacher(teacher, (family.name,))}
    return Scene([family], student, teachers, replace(ZERO, max_new_tokens=16))


def trained(policy: Transformer, texts: Sequence[Document], steps: int, seed: int) -> Transformer:
    """A policy after supervised steps on these texts, ready to be asked."""
    for _ in fine_tune(policy, texts, steps, rows=ROWS, seed=seed):
        pass
    return policy.eval()


def documents(families: Sequence[Family], count: int, seed: int) -> list[Document]:
    """The families' own solutions in steps, as many of each."""
    rng = random.Random(seed)
    problems = [p for family in families for p in draw_problems(family, count // len(families), seed)]
    return [solved(problem, rng) for problem in problems]


def _specialists(
    families: Sequence[Family],
    recipe: RLRecipe,
    base_steps: int,
    sft_steps: int,
    rl_steps: int,
    seed: int,
) -> Scene:
    """A base that half knows all domains; for each domain a copy, fine-tuned and then reinforced on it."""
    start = new_policy(seed, policy_config(64, **TWO_LAYERS))
    trained(start, documents(families, 6000, seed), base_steps, seed)
    teachers, sft_flop, rl_flop = {}, 0.0, 0.0
    for family in families:
        policy = trained(copy.deepcopy(start), documents([family], 2000, seed + 1), sft_steps, seed)
        sft_flop += supervised_flop(policy.config, sft_steps)
        rl_flop += reinforce(policy, [family], recipe, rl_steps, seed)
        teachers[family.name] = Teacher(policy, (family.name,))
    return Scene(families, start, teachers, recipe, sft_flop, rl_flop)


def supervised_flop(config: ModelConfig, steps: float) -> float:
    """The work of fine-tuning steps, by the usual count of 6 FLOP a parameter and token."""
    return 6.0 * accounting.parameters(config).active * ROWS * ROW_TOKENS * steps


def reinforce(
    policy: Transformer,
    families: Sequence[Family],
    recipe: RLRecipe,
    steps: int,
    seed: int,
    budget: float = 0.0,
) -> float:
    """GRPO steps; -> their work: 2 FLOP a parameter and token to draw, 6 to learn.

    Args:
        budget: stop when the work reaches it, if above 0; `steps` is then the most there may be.
    """
    active, spent = accounting.parameters(policy.config).active, 0.0
    question_tokens = {f.name: len(draw_problems(f, 1, 0)[0].question.split()) + 2 for f in families}
    prompt = sum(question_tokens.values()) / len(question_tokens)
    for row in train_policy(policy, Questions(families, seed), recipe, steps):
        answers = recipe.questions * recipe.group_size
        spent += 8.0 * active * answers * (prompt + row["tokens"])
        if budget and spent >= budget:
            break
    return spent
