"""Ways to make one student of many teachers, in several seeds: a recorded study.

    python -m workbench.distillation.merge_study

Seeds differ in the problems, their order and what is drawn; the scene (base and teachers) is shared, which
hides how much bases differ. Results are written one by one, so a study that was broken off goes on.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from workbench.distillation.distil import OBJECTIVES
from workbench.distillation.merging import AVERAGE, MIXED, averaged, distilled, mixed
from workbench.distillation.scenes import Scene, agreeing, contradicting, reinforce, small_student
from workbench.model import Transformer
from workbench.training.records import FOLDER, Records

COMMAND = "python -m workbench.distillation.merge_study"
RECORD = FOLDER / "merging.json"
SCENES: dict[str, Callable[[], Scene]] = {
    "agreeing": agreeing,
    "contradicting": contradicting,
    "small student": small_student,
    "erring teacher": partial(small_student, teacher_steps=160),
}
# Problems of a step, steps, and problems a domain at the end.
PROBLEMS = {"agreeing": 48, "contradicting": 72, "small student": 48, "erring teacher": 48}
STEPS = {"agreeing": 120, "contradicting": 160, "small student": 100, "erring teacher": 100}
N_TEST = {"agreeing": 150, "contradicting": 50, "small student": 200, "erring teacher": 200}
TEXTS, RIGHT_TEXTS = "teacher's texts alone", "teacher's right texts"
SEEDS = (20, 21, 22)
CURVE_TEST = 20  # problems a domain along the way
CURVE_POINTS = 5


def settings(scene: str, method: str, seed: int) -> dict[str, Any]:
    """What a result is found by."""
    return {"scene": scene, "method": method, "seed": seed}


def run(scene: Scene, name: str, method: str, seed: int) -> dict[str, Any]:
    """One way of merging: accuracy on every domain at the end, and a curve over teacher tokens and work."""
    n_test = N_TEST[name]
    if method == "teachers":
        own = [(f, teacher_of(scene, f.name)) for f in scene.families]
        return {
            "accuracy": {f.name: round(scene.score(policy, f, n_test).value, 4) for f, policy in own},
            "base": _values(scene, scene.base, n_test),
            "sft_flop": scene.sft_flop,
            "rl_flop": scene.rl_flop,
        }
    if method == AVERAGE:
        return {"accuracy": _values(scene, averaged(scene), n_test), "flop": 0}
    if method in (MIXED, "reinforced"):
        return _by_reward(scene, name, method, seed)
    curve, steps = [], STEPS[name]
    changes = {"problems": PROBLEMS[name], "rate": 3e-3, "optimizer": "muon"}
    for row, student in distilled(scene, method, steps, changes, every=steps // CURVE_POINTS, seed=seed):
        values = _values(scene, student, n_test if row["step"] == steps else CURVE_TEST)
        point = {field: row[field] for field in ("step", "teacher_tokens", "flop", "tokens")}
        curve.append({**point, "accuracy": float(np.mean(list(values.values())))})
    last = {field: curve[-1][field] for field in ("teacher_tokens", "flop")}
    return {"accuracy": values, **last, "curve": curve}


def _by_reward(scene: Scene, name: str, method: str, seed: int) -> dict[str, Any]:
    merge = Records(RECORD, COMMAND).get(settings(name, methods(name)[1], seed), _missing)
    if method == MIXED:
        policy, flop = mixed(scene, scene.sft_flop + scene.rl_flop + merge["flop"], seed=seed)
    else:
        policy = copy.deepcopy(scene.base)
        flop = reinforce(policy, scene.families, scene.recipe, 2000, seed, merge["flop"])
    return {"accuracy": _values(scene, policy, N_TEST[name]), "flop": flop}


def _missing() -> dict[str, Any]:
    raise ValueError(
        "merge_study: got no distilled student whose work reinforcement could match; needs one of the same "
        "seed; run the objectives first"
    )


def _values(scene: Scene, policy: Transformer, n_test: int) -> dict[str, float]:
    return {name: round(score.value, 4) for name, score in scene.scores(policy, n_test).items()}


def teacher_of(scene: Scene, family: str) -> Transformer:
    """The policy that teaches a family."""
    return next(t.policy for t in scene.teachers.values() if family in t.families)


def methods(scene: str) -> list[str]:
    """What is tried in a scene, in the order that their budgets need."""
    # Teachers that are right in 99 of 100 leave nothing to reject; one that errs does.
    if scene == "erring teacher":
        return ["teachers", TEXTS, RIGHT_TEXTS]
    by_reward = ["reinforced"] if scene == "small student" else [AVERAGE, MIXED]
    objectives = [name for name in OBJECTIVES if name != RIGHT_TEXTS]
    # Twelve teachers take long: there V4's way, the estimate that it replaced, and the plainest.
    if scene == "contradicting":
        objectives = ["OPD, full vocabulary", "OPD, one token", TEXTS]
    return ["teachers", *objectives, *by_reward]


def read_study() -> dict[tuple[Any, ...], dict[str, Any]]:
    """The recorded results by (scene, method, seed); "teachers" and the average are under the first seed."""
    return Records(RECORD, COMMAND).by("scene", "method", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="*", default=list(SCENES), choices=list(SCENES))
    for name in parser.parse_args().scenes:
        scene = SCENES[name]()
        for method in methods(name):
            for seed in SEEDS[: 1 if method in ("teachers", AVERAGE) else None]:
                records = Records(RECORD, COMMAND)
                found = records.get(settings(name, method, seed), lambda: run(scene, name, method, seed))  # noqa: B023
                mean = float(np.mean(list(found["accuracy"].values())))
                print(f"{name:14} {method:28} seed {seed}: {mean:.3f}", flush=True)


if __name__ == "__main__":
    main()
