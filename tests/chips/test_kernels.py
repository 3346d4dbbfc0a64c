"""What every kernel simulator must hold: order, bounds, physics, shapes, and bad input."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.chips import Workload, load_chip, operations
from workbench.chips.kernel_rows import product
from workbench.chips.kernels import kernel_time, kernel_times, load_calibration
from workbench.chips.kernels.machine import machine_of
from workbench.config import load_config

CHIPS = ["a100", "h800", "h20", "b200", "gb300", "mi300x", "mi355x", "ascend-910b2", "ascend-910c",
         "ascend-950dt", "ascend-950pr", "mlu590", "mlu370-x8", "tpu-v6e"]  # fmt: skip
sizes = st.integers(1, 20000)


@given(
    chip=st.sampled_from(CHIPS), m=sizes, n=sizes, k=sizes, more=st.integers(1, 5000), grown=st.integers(0, 2)
)
@settings(max_examples=150, deadline=None)
def test_a_larger_product_never_takes_less_time(chip, m, n, k, more, grown):
    small, large = [float(m), float(n), float(k)], [float(m), float(n), float(k)]
    large[grown] += more
    few, many = (
        kernel_time(product("gemm", 1.0, *shape, "bf16", "bf16"), load_chip(chip)) for shape in (small, large)
    )
    for end in ("lower_s", "expected_s", "upper_s"):
        assert getattr(many, end) >= getattr(few, end) * (1 - 1e-6)


@given(
    chip=st.sampled_from(CHIPS),
    rows=st.integers(1, 4096),
    experts=st.integers(1, 384),
    more=st.integers(1, 64),
)
@settings(max_examples=80, deadline=None)
def test_more_experts_never_take_less_time(chip, rows, experts, more):
    def seconds(count):
        return kernel_time(
            product("experts", float(count), float(rows), 6144.0, 7168.0, "fp4", "fp8"), load_chip(chip)
        )

    assert seconds(experts + more).expected_s >= seconds(experts).expected_s * (1 - 1e-6)


MODELS = ("deepseek-v4-pro", "deepseek-v4-flash", "deepseek-v3.2", "deepseek-v3", "qwen3-235b-a22b")
WORKLOADS = (
    Workload(phase="decode", batch=1, context_tokens=1000),
    Workload(phase="decode", batch=np.array([1.0, 96.0]), context_tokens=np.array([[8192.0], [500000.0]])),
    Workload(phase="prefill", context_tokens=9000, new_tokens=4096),
    Workload(phase="train", context_tokens=4096),
)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: f"{w.phase}{np.shape(w.batch)}")
def test_expected_lies_between_bounds_and_none_beats_peak_or_bandwidth(chip, model, workload):
    chip = load_chip(chip)
    work = operations(load_config(model), workload)
    times = kernel_times(work, chip)
    assert np.isfinite(times.upper_s).all()
    assert (times.lower_s <= times.expected_s).all() and (times.expected_s <= times.upper_s).all()
    device, spread = chip.device(), 1.25 if chip.is_uncertain else 1.0
    for op, lower in zip(work, times.lower_s, strict=True):
        # Vectors may come from the cache that the kernel before filled; everything else comes from memory.
        if op.is_product:
            peak = device.arithmetic(op.weight or "bf16", op.activation).flop_per_s
            floor = np.maximum(op.flop / peak, op.moved_bytes / device.memory_byte_per_s)
            assert (lower >= floor / spread * (1 - 1e-9)).all(), op.name


@pytest.mark.parametrize("chip", ["h200", "ascend-950dt", "mlu590", "mi300x"])
def test_a_sweep_is_its_settings_one_by_one(chip):
    config, chip = load_config("deepseek-v4-flash"), load_chip(chip)
    batch, context = np.array([[1.0], [7.0], [640.0]]), np.array([700.0, 60000.0])
    swept = kernel_times(
        operations(config, Workload(phase="decode", batch=batch, context_tokens=context)), chip
    )
    assert swept.expected_s.shape[1:] == (3, 2)
    for i in range(3):
        for j in range(2):
            one = Workload(phase="decode", batch=float(batch[i, 0]), context_tokens=float(context[j]))
            alone = kernel_times(operations(config, one), chip)
            for end in ("lower_s", "expected_s", "upper_s"):
                # The tilings are compared in single precision: ties may fall either way.
                np.testing.assert_allclose(getattr(swept, end)[:, i, j], getattr(alone, end), rtol=1e-5)


def test_operations_together_cost_what_they_cost_alone():
    work = operations(load_config("deepseek-v4-pro"), Workload(phase="decode", batch=32, context_tokens=9000))
    chip = load_chip("b200")
    together = kernel_times(work, chip, is_fused=False)
    for i, op in enumerate(work):
        assert together.expected_s[i] == pytest.approx(kernel_time(op, chip).expected_s, rel=1e-6)


def test_neighbours_of_one_group_are_launched_once():
    chip = load_chip("h100")
    one = product("gemm", 1.0, 8.0, 512.0, 512.0, "bf16", "bf16")
    apart = kernel_times([one.replace(group="a"), one.replace(group="b")], chip)
    fused = kernel_times([one, one], chip)
    launch = load_calibration().find("hopper", "sm", "gemm.16", "launch").value
    assert apart.expected_s[1] == apart.expected_s[0] == fused.expected_s[0]
    assert fused.expected_s[0] - fused.expected_s[1] == pytest.approx(launch)
    np.testing.assert_allclose(fused.launch_s, [launch, 0.0])


def test_operands_that_are_still_cached_take_no_longer():
    chip = load_chip("l40s")
    one = product("gemm", 1.0, 1.0, 4096.0, 4096.0, "fp8", "fp8")
    assert kernel_time(one, chip, is_warm=True).expected_s < kernel_time(one, chip).expected_s
    huge = product("gemm", 1.0, 1.0, 16384.0, 65536.0, "fp8", "fp8")
    assert kernel_time(huge, chip, is_warm=True).expected_s == kernel_time(huge, chip).expected_s


def test_one_tile_too_many_costs_a_whole_wave():
    chip = load_chip("h100")  # 132 multiprocessors

    def seconds(columns):
        return float(
            kernel_time(product("gemm", 1.0, 2048.0, columns, 8192.0, "bf16", "bf16"), chip).expected_s
        )

    full, over = seconds(128.0 * 16), seconds(128.0 * 17)  # 128 tiles of 256 rows; 136
    assert over - full > 0.15 * full and seconds(128.0 * 15) > 0.9 * full


def test_a_package_of_two_dies_is_timed_as_one_die():
    package, die = load_chip("ascend-910c"), load_chip("ascend-910c").device()
    one = product("gemm", 1.0, 4096.0, 4096.0, 4096.0, "int8", "int8")
    assert kernel_time(one, package).expected_s == kernel_time(one, die).expected_s
    # 752 TOPS is a die: the package's 1,504 would halve this.
    assert kernel_time(one, package).lower_s >= one.flop / 752e12


def test_fp4_beyond_twice_fp8_is_not_credited():
    one = product("gemm", 1.0, 16384.0, 16384.0, 16384.0, "fp4", "fp4")
    b200, b300 = (kernel_time(one, load_chip(name)).expected_s for name in ("b200", "b300"))
    assert b300 == pytest.approx(b200, rel=0.1)  # nominal peaks: 9 and 13.5 PFLOP/s


def test_fp4_weights_with_fp8_activations_run_at_the_fp8_rate():
    chip = load_chip("ascend-950dt")
    mixed, both = (
        kernel_time(product("gemm", 1.0, 8192.0, 8192.0, 8192.0, "fp4", a), chip) for a in ("fp8", "fp4")
    )
    fp8 = kernel_time(product("gemm", 1.0, 8192.0, 8192.0, 8192.0, "fp8", "fp8"), chip)
    assert mixed.expected_s > 0.9 * fp8.expected_s
    assert both.expected_s < 0.7 * fp8.expected_s


def test_top_k_of_few_keys_is_free_and_long_rows_take_another_kernel():
    config, chip = load_config("deepseek-v4-pro"), load_chip("b200")

    def seconds(context):
        work = operations(config, Workload(phase="decode", batch=1, context_tokens=context))
        return float(kernel_time(next(op for op in work if op.name == "top-k"), chip).expected_s)

    assert seconds(2000) < seconds(8192) / 5
    assert seconds(262144) < seconds(65536)


@pytest.mark.parametrize("chip", ["mlu590", "mlu690"])
def test_cambricon_results_say_that_they_are_uncertain(chip):
    time = kernel_time(product("gemm", 1.0, 64.0, 7168.0, 7168.0, "bf16", "bf16"), load_chip(chip))
    assert any("community" in note for note in time.notes)
    assert time.upper_s / time.lower_s > 2


def test_a_format_that_the_chip_lacks_is_named_with_what_replaces_it():
    time = kernel_time(product("gemm", 1.0, 64.0, 512.0, 512.0, "fp8", "fp8"), load_chip("ascend-910c"))
    assert any("no fp8" in note and "int8" in note for note in time.notes)
    fine = kernel_time(product("gemm", 1.0, 64.0, 512.0, 512.0, "fp8", "fp8"), load_chip("h100"))
    assert not fine.notes


@pytest.mark.parametrize("format", ["mxfp8", "hif8", "int8"])
def test_formats_of_other_recipes_have_sizes(format):
    assert kernel_time(product("gemm", 1.0, 64.0, 512.0, 512.0, "bf16", "bf16").replace(
        weight=format, activation=format), load_chip("ascend-950dt")).expected_s > 0  # fmt: skip


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), np.array([4.0, -4.0])])
def test_sizes_below_nothing_are_refused_by_name(wrong):
    one = dataclasses.replace(product("gemm", 1.0, 64.0, 512.0, 512.0, "bf16", "bf16"), m=wrong)
    with pytest.raises(ValueError, match=r"kernel_times: m of 'gemm' is .*mend the operation"):
        kernel_time(one, load_chip("h100"))


def test_no_operations_are_refused():
    with pytest.raises(ValueError, match="got no operations"):
        kernel_times([], load_chip("h100"))


def test_a_chip_without_a_peak_or_a_bandwidth_is_refused():
    one = product("gemm", 1.0, 64.0, 512.0, 512.0, "bf16", "bf16")
    with pytest.raises(ValueError, match="enflame-s60 has no known peak"):
        kernel_time(one, load_chip("enflame-s60"))
    with pytest.raises(ValueError, match="memory_byte_per_s is not known"):
        kernel_time(one, load_chip("kunlun-p800"))


def test_only_parts_with_cut_arithmetic_have_a_pace_of_their_own():
    generations = load_calibration().generations
    whole = ("h100", "h200", "h800", "b200", "gb300", "a100", "l40s")
    pace = {key: machine_of(load_chip(key), generations).pace for key in ("h20", *whole)}
    # H20: 148 TFLOP/s on 78 multiprocessors beside an H100's 989 on 132, over the half that is left alone.
    assert pace["h20"] == pytest.approx(148 / 78 / (989.4 / 132) / 0.5, rel=0.01)
    assert all(pace[key] == 1 for key in whole)
