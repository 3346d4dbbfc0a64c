"""Predictions of a pass: the parts add up, bounds hold, arrays equal single settings, bad input is told."""

import numpy as np
import pytest

import workbench as wb
from workbench.chips import Workload, load_chip, load_cluster
from workbench.chips.engines import CONSTANTS, engine, engines
from workbench.chips.mapping import Mapping
from workbench.chips.precision import precision, precisions
from workbench.chips.predict import default_mapping, predict, sweep

PRO, FLASH = wb.load_config("deepseek-v4-pro"), wb.load_config("deepseek-v4-flash")
V3, LLAMA = wb.load_config("deepseek-v3"), wb.load_config("llama-3.1-405b")
PODS = load_cluster("atlas-950-superpod", chips=16)


def decode(batch=8.0, context=8192, **more):
    return Workload(phase="decode", batch=batch, context_tokens=context, **more)


@pytest.mark.parametrize("overlap", ["none", "two batches", "waves"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_parts_less_what_overlaps_are_the_step(overlap, phase):
    found = predict(
        PRO, PODS, Workload(phase=phase, batch=2, context_tokens=8192), Mapping(dp=16, ep=16, overlap=overlap)
    )
    total = sum(float(row.time.expected) for row in found.rows)
    if phase == "prefill":
        # The host may take longer to start a prefill than the chips to run it.
        assert float(found.step_s.expected) >= total - float(found.hidden_s) - 1e-9
    else:
        # A replayed graph pays a share of the launches that the rows show in full.
        assert float(found.step_s.expected) <= (total - float(found.hidden_s)) * 1.5
    assert float(found.hidden_s) >= -1e-12 if overlap != "none" else found.hidden_s == 0


@pytest.mark.parametrize("config", [PRO, FLASH, V3])
@pytest.mark.parametrize("chip", ["ascend-910c", "ascend-950dt", "b200", "h20", "mi355x"])
def test_more_sequences_and_longer_contexts_never_take_less_time(config, chip):
    cluster = load_cluster(chip, chips=8)
    mapping = Mapping(dp=8, ep=8)
    load = decode(np.array([1.0, 4, 16, 64, 256]))
    steps = predict(config, cluster, load, mapping, check_memory=False).step_s
    assert (np.diff(steps.expected) > -0.03 * steps.expected[:-1]).all()
    assert (steps.lower <= steps.expected).all() and (steps.expected <= steps.upper).all()


def test_arrays_give_what_single_settings_give():
    batches, contexts = np.array([1.0, 8.0, 64.0]), np.array([4096.0, 65536.0, 8192.0])
    many = predict(PRO, PODS, decode(batches, contexts))
    for i, (batch, context) in enumerate(zip(batches, contexts, strict=True)):
        one = predict(PRO, PODS, decode(float(batch), float(context)))
        assert many.step_s.expected[i] == pytest.approx(float(one.step_s.expected), rel=1e-9)
        assert many.tokens_per_s_per_chip[i] == pytest.approx(float(one.tokens_per_s_per_chip), rel=1e-9)
        assert many.limiting[i] == one.limiting


def test_a_sweep_gives_what_predictions_give():
    batches = np.linspace(1, 400, 5000)
    times = sweep(PRO, PODS, decode(batches), Mapping(dp=16, ep=16))
    for i in (0, 2047, 2048, 4999):
        one = predict(PRO, PODS, decode(float(batches[i])), Mapping(dp=16, ep=16), check_memory=False)
        assert times.expected[i] == pytest.approx(float(one.step_s.expected), rel=1e-9)
        assert times.upper[i] == pytest.approx(float(one.step_s.upper), rel=1e-9)


def test_no_step_is_faster_than_its_weights_can_be_read():
    # 16 sequences of 4 tokens touch about 63 % of 384 experts: 55 GB over 16 chips at 4 TB/s each would take
    # 13.8 ms if attention were not replicated (chips.md, section b); replicated, each chip reads it all.
    found = predict(PRO, PODS, decode(1.0, draft_tokens=3, accepted_length=2.44))
    assert float(found.step_s.lower) > 0.0138 * 0.9
    assert 0.02 < float(found.step_s.expected) < 0.06  # measured: 43 ms


def test_tokens_and_chips_are_counted_in_packages():
    cluster = load_cluster("cloudmatrix384", chips=16)
    found = predict(V3, cluster, decode(4.0), Mapping(dp=32, ep=32), precision=precision("int8"))
    assert found.ranks == 32 and found.chips == 16
    rate = 4 * 32 / float(found.step_s.expected) / 16
    assert float(found.tokens_per_s_per_chip) == pytest.approx(rate)


def test_drafts_shorten_the_wait_of_a_single_reader():
    plain = predict(FLASH, PODS, decode(1.0))
    drafted = predict(FLASH, PODS, decode(1.0, draft_tokens=1, accepted_length=1.7))
    assert float(drafted.step_s.expected) > float(plain.step_s.expected)
    assert float(drafted.tpot_s) < float(plain.tpot_s)


def test_changing_one_field_moves_what_it_should():
    load = decode(8.0, 1048576)
    base = predict(PRO, PODS, load)
    fewer = predict(PRO.replace(index_topk=PRO.index_topk // 4), PODS, load)
    core = [
        sum(
            float(r.time.expected)
            for r in p.rows
            if r.name == "core" and r.layer_type.startswith("compressed")
        )
        for p in (base, fewer)
    ]
    assert core[1] < 0.8 * core[0]


def test_unsettled_chips_say_so():
    found = predict(
        LLAMA, load_cluster("mlu370-x8", chips=8), decode(1.0), Mapping(attention_tp=8), check_memory=False
    )
    assert found.limiting and all(float(s) > 0 for s in found.step_s)


def test_every_engine_lies_in_its_intervals():
    for name in engines():
        stack = engine(name)
        for constant in (getattr(stack, c) for c in CONSTANTS):
            assert constant.lower <= constant.value <= constant.upper and constant.source
    changed = engine("graph").replace(layer_s=1.0)
    assert changed.layer_s.value == 1.0 == changed.layer_s.upper
    with pytest.raises(ValueError, match="engine"):
        engine("grap")


def test_the_default_layout_divides_the_experts():
    assert default_mapping(V3, load_cluster("h800", chips=24)) == Mapping(dp=16, ep=16)
    assert default_mapping(LLAMA, load_cluster("h800", chips=8)).attention_tp == 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: predict(PRO, load_cluster("h100", chips=8), decode(1.0)), r"GiB over.*experts"),
        (lambda: predict(V3, load_cluster("h100", chips=8), decode(1.0), Mapping(dp=64, ep=64)), "64 ranks"),
        (lambda: predict(V3, PODS, decode(1.0), engine_name="sglan"), "engine"),
        (lambda: precision("int3"), "precision"),
        (lambda: predict(V3, load_cluster("h801"), decode(1.0)), "h80"),
    ],
)
def test_bad_input_is_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_every_recipe_runs_on_a_chip_of_every_vendor():
    for name in precisions():
        for chip in ("ascend-910c", "b200", "h200", "mi355x"):
            load = decode(4.0)
            found = predict(
                V3,
                load_cluster(chip, chips=8),
                load,
                Mapping(dp=8, ep=8),
                precision=precision(name),
                check_memory=False,
            )
            assert np.isfinite(float(found.step_s.expected)), (name, chip)


def test_a_chip_without_fp8_says_what_it_computes_in():
    found = predict(
        V3, load_cluster("a100", chips=16), decode(4.0), Mapping(dp=16, ep=16), check_memory=False
    )
    assert any("a100" in note.lower() for note in found.notes)
    assert load_chip("a100").arithmetic("fp8", "fp8").compute in ("int8", "bf16")


def test_chips_that_nobody_measured_keep_wide_bounds():
    def width(chip):
        made = predict(FLASH, load_cluster(chip, chips=8), decode(), Mapping(dp=8, ep=8), check_memory=False)
        assert made.step_s.lower < made.step_s.expected < made.step_s.upper
        return made.step_s.upper / made.step_s.lower

    assert width("h200") < 3.2
    # Rates in a band of a quarter, kernels never timed: all of them may err the same way.
    assert width("mi355x") > 1.5 * width("h200")


def test_every_draft_pass_costs_its_own_start():
    stack = engine("sglang-v4").replace(draft_s=0.0)
    for count in (1, 3):
        load = decode(draft_tokens=count, new_tokens=1 + count, accepted_length=1.5)
        free, real = (
            predict(FLASH, PODS, load, with_engine=e).step_s.expected
            for e in (stack, stack.replace(draft_s=1e-3))
        )
        assert real - free == pytest.approx(count * 1e-3)
