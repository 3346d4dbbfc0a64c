"""A run that answers spikes: back to a checkpoint before, and on from there in another way.

Either with Anticipatory Routing for a while, or over other data: what was read since the checkpoint is left
out. With neither the same data meets the same weights, and a deterministic run spikes again: the plain
rollback that the report found not to help.

Report: section 4.2.3: a spike triggers a short rollback and turns Anticipatory Routing on for a while. How
far back and how long is not printed; both are arguments here. Leaving data out is an older remedy (PaLM,
arXiv 2204.02311, section 5.1), to compare with.
"""

import json
import shutil
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from workbench.files import write_whole
from workbench.model import Transformer
from workbench.training.anticipatory import AnticipatoryRouting
from workbench.training.loader import Loader
from workbench.training.loop import Recipe, train
from workbench.training.parameter_groups import make_optimizers
from workbench.training.run_state import checkpoint_step, checkpoints
from workbench.training.spikes import SpikeDetector, SpikeRule

ROLLBACKS = "rollbacks.json"


@dataclass(frozen=True)
class Answer:
    """What to do about a spike.

    Args:
        delay: of Anticipatory Routing; 0 for none.
        steps: how many steps after the checkpoint are routed so.
        back: a checkpoint at least so many steps before the spike is taken, or the oldest there is.
        most: rollbacks of a run. Later spikes are only reported.
        skip: leave out the rows from the checkpoint to the spike. Only without a delay.

    Raises:
        ValueError: a number out of range, or both remedies at once.
    """

    delay: int = 4
    steps: int = 50
    back: int = 1
    most: int = 3
    skip: bool = False

    def __post_init__(self) -> None:
        if min(self.delay, self.most) < 0 or min(self.steps, self.back) < 1:
            raise ValueError(
                f"Answer: got delay={self.delay}, steps={self.steps}, back={self.back}, most={self.most}; "
                f"needs delay and most >= 0, steps and back >= 1; correct the one outside"
            )
        if self.skip and self.delay:
            # The choices that older weights made are for the rows that would be left out.
            raise ValueError(
                f"Answer: got skip with delay={self.delay}; needs one remedy at a time; set delay=0 to skip"
            )


@dataclass(frozen=True)
class Rollback:
    """The spike's step, the checkpoint's step that the run went back to, and rows left out from there."""

    spike: int
    to: int
    skipped: int = 0
    is_done: bool = False


def train_guarded(
    model: Transformer,
    loader: Loader,
    recipe: Recipe,
    *,
    folder: str | Path,
    rule: SpikeRule,
    answer: Answer,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    checkpoint_every: int = 100,
) -> Generator[dict[str, Any], None, None]:
    """`loop.train`, rolled back at every spike; its rows, with `rollbacks`, how many there were so far.

    After a rollback the steps since the checkpoint come again, so step numbers repeat. A loss that is not
    finite is a spike too, without a row. Killed at any point, it resumes as `train` does.

    Raises:
        ValueError: as `train`, or checkpoints so far apart that answer.back is not among the last two.
        FloatingPointError: as `train`, where no checkpoint or no rollback is left.
    """
    if answer.back > checkpoint_every:
        raise ValueError(
            f"train_guarded: got back={answer.back} with checkpoint_every={checkpoint_every}; of the two "
            f"checkpoints kept one must be so far back; lower back or write checkpoints less often"
        )
    folder = Path(folder)
    optimizers = make_optimizers(model, recipe.rate.peak) if optimizers is None else optimizers
    rollbacks = read_rollbacks(folder)
    while True:
        if rollbacks and not rollbacks[-1].is_done:
            _remove_after(folder, rollbacks[-1].to)
            rollbacks[-1] = replace(rollbacks[-1], is_done=True)
            _write(folder, rollbacks)
        loader.skipped = sum(rollback.skipped for rollback in rollbacks)
        spike = None
        run = train(
            model,
            loader,
            recipe,
            optimizers=optimizers,
            folder=folder,
            checkpoint_every=checkpoint_every,
            anticipatory=_anticipatory(model, rollbacks, answer),
            detector=SpikeDetector(rule),
        )
        step = 0
        try:
            for row in run:
                step = row["step"]
                yield {**row, "rollbacks": len(rollbacks)}
                if row["is_spike"]:
                    spike = _rollback(folder, step, rollbacks, answer, recipe)
                    if spike is not None:
                        break
        except FloatingPointError:
            spike = _rollback(folder, step + 1, rollbacks, answer, recipe)
            if spike is None:
                raise
        finally:
            run.close()
        if spike is None:
            return
        rollbacks.append(spike)
        _write(folder, rollbacks)


def read_rollbacks(folder: Path) -> list[Rollback]:
    """The rollbacks of a run so far, from its folder.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / ROLLBACKS
    if not path.is_file():
        return []
    try:
        return [Rollback(**values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"train_guarded: {path} is damaged ({error}); needs a list of rollbacks; remove it to go on "
            f"without Anticipatory Routing from the last checkpoint"
        ) from error


def _anticipatory(
    model: Transformer, rollbacks: Sequence[Rollback], answer: Answer
) -> AnticipatoryRouting | None:
    if not rollbacks or not answer.delay:
        return None
    begin = rollbacks[-1].to
    return AnticipatoryRouting(model, answer.delay, begin=begin, end=begin + answer.steps)


def _rollback(
    folder: Path, spike: int, rollbacks: Sequence[Rollback], answer: Answer, recipe: Recipe
) -> Rollback | None:
    """Where to go back to from a spike; None if there is nowhere, or it has been done often enough."""
    steps = [checkpoint_step(path) for path in checkpoints(folder)]
    earlier = [step for step in steps if step < spike]
    if not earlier or len(rollbacks) >= answer.most:
        return None
    far_enough = [step for step in earlier if step <= spike - answer.back]
    to = max(far_enough, default=min(earlier))
    return Rollback(spike, to, sum(map(recipe.batch, range(to, spike))) if answer.skip else 0)


def _remove_after(folder: Path, step: int) -> None:
    for path in checkpoints(folder):
        if checkpoint_step(path) > step:
            shutil.rmtree(path)


def _write(folder: Path, rollbacks: Sequence[Rollback]) -> None:
    write_whole(folder / ROLLBACKS, json.dumps([asdict(rollback) for rollback in rollbacks]))
