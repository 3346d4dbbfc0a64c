"""A training step: its parts add up, published runs come out near, and every knob turns the right way."""

import dataclasses

import pytest

from workbench.accounting.training import training_flop_per_token
from workbench.chips import Mapping, load_chip, load_cluster
from workbench.chips.engines import engine
from workbench.chips.precision import precision
from workbench.chips.runs import model_flop_per_token, run_step
from workbench.chips.training_step import Recipe, beside_traffic, training_step
from workbench.config import load_config
from workbench.units import TRILLION

V3, PRO = load_config("deepseek-v3"), load_config("deepseek-v4-pro")
MAPPING = Mapping(dp=128, pp=16, ep=64, expert_copies="per node", overlap="two batches")
RECIPE = Recipe(4096, 15360, schedule="dualpipe")


def step_of(config=V3, chip="h800", name="dualpipe", mapping=MAPPING, recipe=RECIPE, **options):
    return run_step(config, load_cluster(chip, chips=2048), mapping, recipe, engine(name), **options)


def test_v3_s_published_step_comes_out():
    step = step_of(optimiser="adamw")
    # 180K H800 hours a trillion tokens; 19.926 s a step, 38.94% of the BF16 peak (arXiv 2505.09343).
    assert float(step.chip_hours(TRILLION).expected) == pytest.approx(180e3, rel=0.12)
    assert float(step.step_s.expected) == pytest.approx(19.926, rel=0.12)
    assert step.mfu == pytest.approx(0.3894, rel=0.12)
    assert step.chip_hours(TRILLION).lower < 180e3 < step.chip_hours(TRILLION).upper
    assert step.tokens == 15360 * 4096


def test_parts_add_up_and_bounds_hold():
    step = step_of()
    for end in ("lower", "expected", "upper"):
        parts = [getattr(p, end) for p in (step.pipeline_s, step.reduction_s, step.optimiser_s)]
        assert sum(map(float, parts)) == pytest.approx(float(getattr(step.step_s, end)))
    assert step.step_s.lower < step.step_s.expected < step.step_s.upper
    rate = step.tokens / float(step.step_s.expected) / 2048
    assert step.tokens_per_s_per_chip == pytest.approx(rate)
    flop = training_flop_per_token(V3, 4096)
    assert step.mfu == pytest.approx(rate * flop / load_chip("h800").peak_flop_per_s["bf16"])


def test_the_played_step_is_the_average_one_where_nothing_differs():
    # 1F1B over level stages and without overlap: closed form and schedule must agree.
    mapping, recipe = MAPPING.replace(overlap="none"), Recipe(4096, 15360, schedule="1f1b")
    base = training_step(V3, load_cluster("h800", chips=2048), mapping, recipe, engine("dualpipe"))
    step = step_of(mapping=mapping, recipe=recipe, optimiser="adamw")
    assert float(step.step_s.expected) == pytest.approx(float(base.step_s.expected), rel=0.01)


def test_a_dualpipe_rank_takes_the_mean_of_its_two_stages():
    # Played over stages as they are cut: first and last lie on one rank, so neither sets the pace.
    level, cut = (float(step_of(stages=stages).step_s.expected) for stages in ("level", "as cut"))
    assert cut == pytest.approx(level, rel=0.05)
    # One direction only: the last stage, with head and MTP, holds everybody up.
    one_way = step_of(stages="as cut", recipe=Recipe(4096, 15360, schedule="1f1b"))
    assert float(one_way.step_s.expected) > 1.2 * cut


def test_cores_that_carry_tokens_are_lost_to_kernels_on_gpus_alone():
    recipe, one_way = Recipe(4096, 15360, schedule="dualpipe"), Recipe(4096, 15360)
    stack = engine("dualpipe")
    slower = beside_traffic(stack, load_cluster("h800", chips=8), recipe).slowdown
    assert slower.value == pytest.approx(stack.slowdown.value * 132 / 112)
    assert slower.upper / slower.value == pytest.approx(stack.slowdown.upper / stack.slowdown.value)
    assert beside_traffic(stack, load_cluster("ascend-910c", chips=8), recipe) is stack
    assert beside_traffic(stack, load_cluster("h800", chips=8), one_way) is stack


def test_every_knob_turns_the_right_way():
    base = float(step_of().step_s.expected)
    assert float(step_of(precision=precision("bf16")).step_s.expected) > base
    assert float(step_of(straggler=1.1).pipeline_s.expected) == pytest.approx(
        1.1 * float(step_of().pipeline_s.expected)
    )
    assert float(step_of(optimiser="adamw").step_s.expected) < base
    assert float(step_of(mapping=MAPPING.replace(expert_imbalance=1.5)).step_s.expected) > base
    assert float(step_of(recipe=Recipe(4096, 15360, schedule="1f1b")).step_s.expected) > base
    assert step_of(recipe=Recipe(4096, 15360, schedule="1f1b")).timeline.bubble_share > 0.09


def test_v4_counts_its_own_flop_and_goodput_costs_hours():
    # A step of V4-Pro moves about 6 FLOP a parameter and token, and attention on top.
    assert model_flop_per_token(PRO, 4096) == pytest.approx(6 * 49e9, rel=0.15)
    step = step_of(PRO, recipe=Recipe(4096, 23040, schedule="dualpipe"))
    half, whole = (float(step.chip_hours(TRILLION, goodput=g).expected) for g in (0.5, 1.0))
    assert half == pytest.approx(2 * whole)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: step_of(optimiser="sgd"), "run_step: optimiser 'sgd' is unknown"),
        (lambda: step_of(stages="bent"), "run_step: stages 'bent' is unknown"),
        (lambda: step_of().chip_hours(1.0, goodput=0.0), "chip_hours: goodput is 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_dualpipe_says_so_where_a_chip_has_no_cores_for_its_traffic():
    cluster = load_cluster("h800", chips=2048)
    small = dataclasses.replace(cluster, chip=dataclasses.replace(cluster.chip, matrix_cores=20.0))
    with pytest.raises(ValueError, match="has 20 cores; DualPipe takes 20 of them"):
        beside_traffic(engine("dualpipe"), small, RECIPE)
