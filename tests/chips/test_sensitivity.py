"""The tornado's rows: what each constant moves, against the whole simulator with that constant changed."""

import pytest

from workbench.chips import Mapping, Workload, predict
from workbench.chips.sensitivity import sensitivity
from workbench.chips.systems import load_system
from workbench.config import load_config

FLASH = load_config("deepseek-v4-flash")
WORK = Workload(phase="decode", batch=16, context_tokens=8192)
LAYOUT = Mapping(dp=8, ep=8)


def effects(key, mapping=LAYOUT):
    one = load_system(key)
    found = sensitivity(FLASH, one.cluster(8), WORK, mapping, one.engine, precision=one.precision)
    return one, {f"{e.group}/{e.name}": e for e in found}


def test_the_base_is_the_prediction_and_bars_are_sorted():
    one, found = effects("b200")
    made = predict(FLASH, one.cluster(8), WORK, LAYOUT, precision=one.precision, with_engine=one.engine)
    swings = [e.swing for e in found.values()]
    assert all(e.base_s == pytest.approx(float(made.step_s.expected)) for e in found.values())
    assert swings == sorted(swings, reverse=True) and min(swings) > 0


def test_an_engine_constant_moves_what_the_whole_simulator_says():
    one, found = effects("b200")
    slow = predict(
        FLASH, one.cluster(8), WORK, LAYOUT, precision=one.precision,
        with_engine=one.engine.replace(slowdown=one.engine.slowdown.upper),
    )  # fmt: skip
    assert found["engine/slowdown"].upper_s == pytest.approx(float(slow.step_s.expected))
    # 0.5 ms of scheduling between 0.1 and 1.5: seconds go over one to one.
    step = found["engine/step_s"]
    assert step.upper_s - step.lower_s == pytest.approx(step.upper - step.lower)


def test_routing_and_links_and_kernels_are_all_there_and_have_the_right_sign():
    _, found = effects("b200")
    assert {e.group for e in found.values()} == {"engine", "kernels", "links", "routing"}
    assert found["routing/expert_imbalance"].upper_s > found["routing/expert_imbalance"].lower_s
    assert found["links/expert_launch_s"].upper_s > found["links/expert_launch_s"].lower_s
    # A larger share of the bandwidth is a shorter step.
    memory = [e for name, e in found.items() if name.endswith("/memory")]
    assert memory and all(e.upper_s <= e.base_s <= e.lower_s for e in memory)


def test_only_a_chip_of_bands_has_bars_of_its_own():
    _, found = effects("mlu590")
    banded = {e.name for e in found.values() if e.group == "chip"}
    assert "memory_byte_per_s" in banded
    assert found["chip/memory_byte_per_s"].upper_s < found["chip/memory_byte_per_s"].lower_s


def test_other_passes_are_refused():
    one = load_system("b200")
    with pytest.raises(ValueError, match="sensitivity: got phase 'prefill'"):
        sensitivity(FLASH, one.cluster(8), Workload(phase="prefill", context_tokens=99), LAYOUT, one.engine)
    with pytest.raises(ValueError, match="overlap 'waves'"):
        sensitivity(FLASH, one.cluster(8), WORK, LAYOUT.replace(overlap="waves"), one.engine)
