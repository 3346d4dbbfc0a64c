"""Many teachers into one student: V4's on-policy distillation beside the other ways, with their work counted.

Report: V4 section 5.1.2, equation 29. V3.2 mixed the data of all domains and then reinforced on all at once.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from workbench.distillation.distil import OBJECTIVES, DistilRecipe, distil
from workbench.distillation.domains import average
from workbench.distillation.scenes import Scene, documents, reinforce, supervised_flop, trained
from workbench.model import Transformer
from workbench.reasoning.recipe import Questions

AVERAGE, MIXED = "weights averaged", "data mixed, then mixed RL"


def distilled(
    scene: Scene, objective: str, steps: int, changes: dict[str, Any], *, every: int, seed: int
) -> Iterator[tuple[dict[str, Any], Transformer]]:
    """Distil the scene's teachers into its base; every so many steps the row so far and the student.

    Args:
        objective: a name of `OBJECTIVES`; `changes` are made to that recipe.

    Raises:
        ValueError: an unknown objective.
    """
    recipe = recipe_of(objective, scene, changes)
    student = copy.deepcopy(scene.base)
    for row in distil(student, scene.teachers, Questions(scene.families, seed), recipe, steps):
        if row["step"] % every == 0 or row["step"] == steps:
            yield row, student


def recipe_of(objective: str, scene: Scene, changes: dict[str, Any]) -> DistilRecipe:
    """The published objective with a scene's length of answers."""
    if objective not in OBJECTIVES:
        raise ValueError(
            f"distilled: got objective {objective!r}; needs one of {list(OBJECTIVES)}; choose among those"
        )
    return replace(OBJECTIVES[objective], max_new_tokens=scene.recipe.max_new_tokens, **changes)


def averaged(scene: Scene) -> Transformer:
    """The mean of the specialists' weights: no further work."""
    return average([teacher.policy for teacher in scene.teachers.values()])


def mixed(scene: Scene, flop: float, *, seed: int, most_steps: int = 2000) -> tuple[Transformer, float]:
    """One model on all domains at once: as much supervision as the specialists had, then GRPO with the rest.

    Args:
        flop: what the way by specialists took in all: their training, and the merge.
    """
    policy, spent = copy.deepcopy(scene.base), 0.0
    if scene.sft_flop:
        steps = round(scene.sft_flop / supervised_flop(policy.config, 1))
        own = documents(scene.families, 2000 * len(scene.families), seed + 1)
        trained(policy, own, steps, seed)
        spent += scene.sft_flop
    recipe = replace(scene.recipe, questions=16)
    return policy, spent + reinforce(policy, scene.families, recipe, most_steps, seed, max(flop - spent, 1.0))
