"""The chip explorers' pure functions: what they draw is what the simulators say, for any setting."""

import itertools

import pytest

from workbench.chips import Shard, Workload, kernel_times, load_chip, operations
from workbench.config import load_config
from workbench.widgets.chip_rows import (
    CHIPS,
    TRACED,
    breakdown_rows,
    fallback_rows,
    layer,
    level_rows,
    limit_rows,
    part_of,
    roofline_rows,
    shown,
    tokens_workload,
)
from workbench.widgets.chips import (
    kernel_explorer,
    kernel_figure,
    operation_of,
    react_explorer,
    react_figure,
)

PRO = load_config("deepseek-v4-pro")
SETTING = dict(
    tokens=8, context_tokens=4096, csa_ratio=4, hc_mult=4, moe_intermediate_size=3072, num_attention_heads=128
)


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize(("tokens", "phase"), [(1, "decode"), (8192, "prefill")])
def test_every_operation_can_be_drawn_on_every_chip(name, tokens, phase):
    for chip, beside in itertools.pairwise(CHIPS):
        figure = kernel_figure(name, chip, beside, tokens, phase)
        heads = [a.text for a in figure.layout.annotations]
        assert [text.split(":")[0] for text in heads] == [f"<b>{shown(c)}</b>" for c in (chip, beside)]
        assert all("× the roofline" in text for text in heads)


def test_one_chip_beside_itself_is_drawn_once():
    assert len(kernel_figure("core", "h20", "h20", 4, "decode").layout.annotations) == 1


def test_an_unknown_operation_lists_those_there_are():
    with pytest.raises(ValueError, match=r"operation_of: got 'q_c_proj'.*q_b_proj.*choose one"):
        operation_of("q_c_proj", 1, "decode")


def test_the_explorers_follow_their_controls():
    explorer = kernel_explorer()
    before = explorer.figure.layout.title.text
    explorer._controls["tokens"].value = 1024
    assert before != explorer.figure.layout.title.text and "1024 tokens" in explorer.figure.layout.title.text
    react = react_explorer()
    react._controls["context_tokens"].value = 1024
    assert "1,024 tokens" in react.figure.layout.title.text


def changes(**fields):
    figure = react_figure("deepseek-v4-pro", **(SETTING | dict(index_topk=1024) | fields))
    labels = [t for t in figure.data if t.type == "scatter" and t.mode == "text"]
    return [label.text[0].strip() for label in labels if label.text[0].strip()]


def test_the_released_configuration_changes_nothing():
    assert set(changes()) <= {"+0.0%", "−0.0%"}


def test_a_wider_expert_costs_every_chip():
    assert len(changes(moe_intermediate_size=4096)) == len(CHIPS)
    assert all(text.startswith("+") and text != "+0.0%" for text in changes(moe_intermediate_size=4096))


def test_without_8_and_4_bits_every_chip_is_slower():
    gone = dict(zip(CHIPS, changes(small_formats="none", tokens=256), strict=True))
    assert all(float(text.strip("+%")) > 5 for text in gone.values()), gone
    # More rows a weight: more of the time is the matrix unit's, so that the same loss weighs more.
    more = dict(zip(CHIPS, changes(small_formats="none", tokens=1024), strict=True))
    assert float(more["h800"].strip("+%")) > float(gone["h800"].strip("+%"))


def test_a_breakdown_loses_no_time():
    work = operations(PRO, Workload(phase="decode", batch=4, context_tokens=8192), Shard(ep=32))
    (chip,) = ["b200"]
    times = kernel_times(work, load_chip(chip))
    whole = sum(float(s) * float(op.count) for s, op in zip(times.expected_s, work, strict=True))
    assert sum(row["seconds"] for row in breakdown_rows(work, [chip])) == pytest.approx(whole)


def test_a_layer_is_one_of_many_devices():
    work = layer(PRO, tokens_workload(64))
    experts = next(op for op in work if op.name == "experts gate_up")
    assert experts.batch <= 384 / 32 and all(op.count == 1 for op in work)
    assert {part_of(op) for op in work} >= {
        "attention core",
        "index and top-k",
        "stream mixing (mHC)",
        "experts",
    }


def test_limits_and_roofs_agree_with_the_catalog():
    work = layer(PRO, tokens_workload(64))
    points, roofs = roofline_rows(work, ["h20", "mlu590"])
    assert {r["format"] for r in roofs if r["chip"] == "H20"} >= {"fp8", "bf16", "tf32"}
    assert all(p["low"] <= p["flop_per_s"] <= p["high"] for p in points)
    assert len(limit_rows(work, ["h20"])) == len(work)


def test_what_a_chip_lacks_is_said():
    rows = {r["chip"]: r for r in fallback_rows({"experts": ("fp4", "fp8")}, CHIPS)}
    assert (
        rows[shown("ascend-910c")]["category"] == "requantised"
        and "int8" in rows[shown("ascend-910c")]["text"]
    )
    assert rows["H800"]["category"] == "as released" and rows["H800"]["text"].startswith("fp8")


def test_memory_levels_are_those_of_all_cores_and_unknown_ones_are_bands():
    rows = {(r["chip"], r["level"]): r for r in level_rows(CHIPS)}
    # 910C, one die: 24 cubes with 64 + 64 + 128 KiB beside the unit; 512 KiB and two of 192 KiB in the core.
    assert rows[shown("ascend-910c"), "beside the unit"]["bytes"] == 24 * 256 * 1024
    assert rows[shown("ascend-910c"), "in the core"]["bytes"] == 24 * (512 + 2 * 192) * 1024
    unknown = rows["MLU590", "in the core"]
    assert unknown["bytes"] is None and unknown["low"] < unknown["high"]
