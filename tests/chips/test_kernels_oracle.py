"""The closed form of the tile pipeline against a simulation event by event."""

import math

import numpy as np
import pytest

from tests.oracles.tile_pipeline import core_seconds, gemm_seconds
from workbench.chips.catalog import load_chip
from workbench.chips.kernels import davinci, load_calibration, mlu, sm
from workbench.chips.kernels.attention import KEYS_PER_STEP, attention_cost
from workbench.chips.kernels.families import FAMILIES
from workbench.chips.kernels.machine import machine_of
from workbench.chips.kernels.tiles import Tilings, Work, search


def setting(chip, path="gemm.16"):
    calibration = load_calibration()
    machine = machine_of(load_chip(chip), calibration.generations)
    return machine, calibration.params(machine.generation, machine.family, (path,))


def work(m, n, k, peak, groups=1.0, element=2.0, **more):
    one = {"groups": groups, "m": m, "n": n, "k": k, "a_bytes": element, "w_bytes": element, "o_bytes": 2.0}
    return Work(**{name: np.array([float(v)]) for name, v in {**one, "peak": peak}.items()}, **more)


def oracle(machine, params, m, n, k, tile, split, peak):
    """The same product, from the numbers of the architecture alone."""
    rates = {"core_flop": peak / machine.cores * params.efficiency, "load": params.load}
    common = {"a_bytes": 2, "w_bytes": 2, "o_bytes": 2, "cores": int(machine.cores)}
    if machine.family == "sm":
        more = {
            "feed": None, "step_channels": 64, "least_step": params.step,
            "shared_columns": 2 if machine.generation == "blackwell" else 1,
        }  # fmt: skip
    else:
        more = {
            "feed": 256 * machine.clock_hz, "step_channels": 32768 // (max(tile) * 2),
            "least_step": params.step,
            "accumulators": 1 if tile[0] * tile[1] * 8 > machine.l0c_bytes else 2,
        }  # fmt: skip
    return gemm_seconds(
        m, n, k, tile=tile, split=split, join=machine.cores * params.load, **common, **rates, **more
    )


SHAPES = [(128, 256, 512), (96, 500, 1024), (1024, 2048, 1024), (40, 7168, 1536), (2048, 1536, 256)]


@pytest.mark.parametrize("chip", ["h100", "b200", "ascend-910c", "ascend-950dt"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile", [(64, 128), (128, 128), (128, 256)])
@pytest.mark.parametrize("split", [1, 4])
def test_core_time_is_that_of_the_engines_event_by_event(chip, shape, tile, split):
    machine, params = setting(chip)
    module = {"sm": sm, "davinci": davinci}[machine.family]
    peak = 4e14
    tilings = Tilings(*(np.array([float(v)]) for v in (*tile, split)))
    closed = module.gemm_cost(machine, tilings, work(*shape, peak), params).overlapped[0]
    slow = oracle(machine, params, *shape, tile, split, peak)
    # Tiles at the edge count as whole ones in the closed form.
    is_whole = shape[1] % tile[1] == 0
    assert 0.95 * slow <= closed <= slow * (1.03 if is_whole else 1.25)


@pytest.mark.parametrize("chip", ["h100", "ascend-910c"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_search_finds_the_tiling_that_the_engines_like_best(chip, shape):
    machine, params = setting(chip)
    family, peak = FAMILIES[machine.family], 4e14
    one = work(*shape, peak)
    chosen = search(family.gemm, one, params, lambda t, w, p: family.gemm_cost(machine, t, w, p))
    best = min(
        oracle(machine, params, *shape, (int(r), int(c)), int(s), peak)
        for r, c, s in zip(
            family.gemm.rows[:, 0], family.gemm.columns[:, 0], family.gemm.splits[:, 0], strict=True
        )
    )
    assert chosen.overlapped[0] == pytest.approx(best, rel=0.05)


def test_four_mlu_cores_share_one_load_of_activations():
    machine, params = setting("mlu590")
    tilings = Tilings(*(np.array([v]) for v in (128.0, 128.0, 1.0)))
    cost = mlu.gemm_cost(machine, tilings, work(128, 128, 1024, 1e14), params)
    weights, activations = 128 * 1024 * 2, 128 * 1024 * 2
    assert cost.load[0] == pytest.approx((weights + activations / 4) / params.load)
    assert cost.feed[0] == pytest.approx(activations / params.load)


@pytest.mark.parametrize(("heads", "keys", "sequences"), [(128, 4096, 64), (16, 640, 3), (128, 2048, 500)])
def test_attention_is_its_units_one_after_another(heads, keys, sequences):
    machine, params = setting("h100", "attention")
    channels, peak, split = 512, 9e14, 2
    tilings = Tilings(*(np.array([v]) for v in (64.0, 64.0, float(split))))
    one = work(heads, keys, channels, peak, groups=float(sequences), value_k=np.array([512.0]),
               vector_flop=np.array([8.0]))  # fmt: skip
    closed = attention_cost(machine, 0.0, tilings, one, params).overlapped[0]

    rows, blocks = 16 * math.ceil(min(64, heads) / 16), int(keys / split / KEYS_PER_STEP)
    load = (64 + rows / blocks) * channels * 2 / params.load
    compute = 2 * rows * 64 * 1024 / (peak / machine.cores * params.efficiency)
    vector = rows * 64 * 8 / (machine.vector_flop_per_s / machine.cores)
    unit = {"steps": [(load, compute, vector)] * blocks, "store": rows * channels * 4 / params.load}
    slowest = max(load, compute, vector)
    # What the ramp adds to walking the steps through the engines.
    pause = params.ramp * slowest - (load + compute + vector - slowest)
    assert pause > 0
    units = math.ceil(sequences * math.ceil(heads / 64) * split / machine.cores)
    slow = core_seconds([unit] * units, pause=pause)
    join = sequences * heads * 512 * split * 4 / (machine.cores * params.load)
    # The closed form pays the last unit's ramp as well.
    assert closed == pytest.approx(slow + pause + join, rel=0.05)


def test_a_950_hands_scores_over_without_a_detour_through_l2():
    for chip, detour in (("ascend-910c", 12), ("ascend-950dt", 0)):
        machine, params = setting(chip, "attention")
        tilings = Tilings(*(np.array([v]) for v in (128.0, 128.0, 1.0)))
        one = work(128, 1024, 512, 4e14, value_k=np.array([512.0]), vector_flop=np.array([8.0]))
        cost = FAMILIES["davinci"].attention_cost(machine, tilings, one, params)
        assert cost.feed[0] == pytest.approx(128 * 1024 * detour / params.load)
