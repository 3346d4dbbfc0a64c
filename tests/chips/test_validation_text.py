"""The words of measurement tables: what they mean, and that no wording stops the reader."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.chips.validation.judge import current_engines, row_results
from workbench.chips.validation.rows import Row
from workbench.chips.validation.text import (
    Drafts,
    Layout,
    Pools,
    chip_of,
    counts_dies,
    drafts_of,
    layout_of,
    model_of,
    number,
    numbers,
    pools_of,
    precision_of,
)


@pytest.mark.parametrize(
    ("words", "preset"),
    [("DeepSeek-V4-Pro-0813", "deepseek-v4-pro"), ("DeepSeek-V4-Flash-0731", "deepseek-v4-flash"),
     ("DeepSeek-V3.2-Exp", "deepseek-v3.2"), ("DeepSeek-V3/R1", "deepseek-v3"),
     ("DeepSeek-R1-0528", "deepseek-v3"),
     ("nv/DeepSeek-R1-NVFP4", "deepseek-v3"), ("DeepSeek-V4.1-Flash off-peak", None), ("GLM-5.2 (DSA)", None),
     ("Qwen-2.5-72B", "qwen2.5-72b"), ("LLaMA-3.1-405B", "llama-3.1-405b")],
)  # fmt: skip
def test_models(words, preset):
    assert model_of(words) == preset
    assert preset is None or preset in wb.presets()


@pytest.mark.parametrize(
    ("words", "key"),
    [("H800", "h800"), ("B200-class SM100", "b200"), ("GB300 (SGLang)", "gb300"),
     ("Ascend 910C die", "ascend-910c"),
     ("Ascend 910B-class", "ascend-910b2"), ("H800 + 400G IB", "h800"), ("b200_sxm", "b200"),
     ("MI355X", "mi355x"),
     ("RTX 3090", None), ("any", None), ("", None)],
)  # fmt: skip
def test_chips(words, key):
    assert chip_of(words) == key


def test_dies_are_told_from_packages():
    assert counts_dies("Ascend 910C die") and counts_dies("Ascend 910C dies")
    assert not counts_dies("Ascend 910C")


@pytest.mark.parametrize(
    ("words", "value"),
    [("8192 max", 8192), ("16K tok/GPU", 16384), ("1048576", 1048576), ("<2000", 2000), ("64 x 4K", 64),
     ("512-1536", 512), ("2,824", 2824), ("saturated", None), ("", None)],
)  # fmt: skip
def test_numbers(words, value):
    assert number(words) == value
    assert numbers("123 / 250.5") == [123, 250.5]


@pytest.mark.parametrize(
    ("words", "note", "drafts"),
    [
        ("DP16 EP16, MTP3", "MTP3 accepts 1.44, MTP1 accepts 0.7", Drafts(3, 2.44, "mtp")),
        ("DP16 EP16, MTP1", "MTP3 accepts 1.44, MTP1 accepts 0.7", Drafts(1, 1.7, "mtp")),
        ("MTP3 (1.44 accepted), perfect EPLB", "", Drafts(3, 2.44, "mtp")),
        ("TP4, no DP, draft 3 steps", "", Drafts(3, None, "mtp")),
        ("TP8 draft 3 steps", "", Drafts(3, None, "mtp")),
        ("TP8, 2 drafts", "", Drafts(2, None, "mtp")),
        ("DP4 attention + EP4 (MegaMoE), no draft", "", Drafts()),
        ("TP4 DSpark accept 4.0", "", Drafts(5, 4.0, "dspark")),
        ("target only", "", Drafts()),
        ("EP32 TP1", "", Drafts()),
    ],
)
def test_drafts(words, note, drafts):
    assert drafts_of(words, note) == drafts


@pytest.mark.parametrize(
    ("words", "layout"),
    [
        ("EP144 DP144, 18 nodes", Layout(dp=144, ep=144)),
        ("EP32 DP attention, 4 nodes", Layout(dp=32, ep=32)),
        ("DP8 attention, experts TP8, draft 1 step", Layout(dp=8, expert_tp=8)),
        ("DP4 attention + EP4 (MegaMoE), no draft", Layout(dp=4, ep=4, waves=True)),
        ("TP1 PP2 VP4 EP32", Layout(tp=1, pp=2, vp=4, ep=32)),
        ("EP32, perfect EPLB", Layout(ep=32, balanced=True)),
        ("DP4TP4 colocated", Layout(dp=4, tp=4)),
        ("MLA DP32 + MoE EP32 + micro-batch", Layout(dp=32, ep=32, two_batches=True)),
    ],
)
def test_layouts(words, layout):
    assert layout_of(words) == layout


@pytest.mark.parametrize(
    ("words", "pools"),
    [("P8(TP8)+D32(EP1)", Pools(8, 32, 8, 1)), ("P4+D24", Pools(4, 24)),
     ("P12+D20(EP4), MTP", Pools(12, 20, None, 4)),
     ("P DP4TP4 + D DP16TP1, MTP", None), ("TP8", None)],
)  # fmt: skip
def test_pools(words, pools):
    assert pools_of(words) == pools


def test_precisions():
    assert precision_of("HiF8-MXFP8-MXFP4", "deepseek-v4-pro").dense == "hif8"
    assert precision_of("W4A8 MoE", "deepseek-v3.2").experts == "int4"
    assert precision_of("FP4", "deepseek-v4-pro").expert_activation == "fp8"
    assert precision_of("FP4", "deepseek-v3").expert_activation == "nvfp4"
    assert precision_of("W8A8C16", "deepseek-v4-flash").cache_format == "bf16"
    assert "no kernel" in precision_of("MXFP4 GGUF", "deepseek-v4-flash")
    assert "not understood" in precision_of("ternary", "deepseek-v3")


ENGINES = current_engines()
WORDS = st.sampled_from(
    ["", "?", "EP9999", "TP7", "DP0 EP0", "P0+D0", "P8(TP3)+D9(EP5)", "MTP9", "1e9", "-4", "0",
     "nan", "64/96", "8K max",
     "4096x0x4096", "agentic", "PP999 EP64", "DP16TP1", "best", "100%", "saturated", "EP8 low latency"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(
            ("count", "batch", "input_len", "output_len", "parallelism", "value", "tpot_ms", "note"), WORDS
        )
    ),
    st.sampled_from(
        ["decode", "prefill", "service", "kernel", "training", "memory", "cost", "carrier pigeon"]
    ),
    st.sampled_from(
        ["DeepSeek-V4-Pro", "DeepSeek-R1", "kernel: GEMM", "EP all-to-all", "kernel: MLA", "GPT-2"]
    ),
    st.sampled_from(["H800", "Ascend 910C die", "abacus", "L40S", "Ascend 950DT"]),
    st.sampled_from(["FP8", "INT8", "", "FP4", "ternary"]),
    st.sampled_from(["tok/s/GPU", "us", "ms", "%", "furlongs", "tok/s (cluster)", "KB", "GB/s", "TFLOP/s"]),
)
def test_no_wording_stops_the_others(fields, phase, model, chip, precision, unit):
    row = Row(
        id="1",
        phase=phase,
        model=model,
        chip=chip,
        precision=precision,
        unit=unit,
        metric="throughput",
        **fields,
    )
    results = row_results(row, ENGINES)
    assert results
    for result in results:
        assert (result.predicted is None) == bool(result.excluded)
        assert result.excluded != "not understood: "


def test_a_row_without_anything_is_left_out_with_a_reason():
    (result,) = row_results(dataclasses.replace(Row(), id="7"), ENGINES)
    assert result.row == "7" and "not simulated" in result.excluded


def _decode(**changes):
    cells = dict(
        id="1", chip="B200", count="8", model="DeepSeek-V4-Pro", precision="FP4", phase="decode", batch="1",
        input_len="8K", parallelism="TP8", metric="throughput", value="10", unit="tok/s/GPU",
    )  # fmt: skip
    return row_results(Row(**cells | changes), current_engines())[-1]


def _service(**changes):
    cells = dict(
        id="1", chip="H200", count="8", model="DeepSeek-R1", precision="FP8", phase="service", batch="64",
        input_len="8192", output_len="1024", parallelism="TP8 SGLang", metric="output throughput", value="10",
        unit="tok/s/GPU",
    )  # fmt: skip
    return row_results(Row(**cells | changes), current_engines())[-1]


def test_one_decoding_step_in_four_units():
    rate = _decode().predicted
    tpot_ms = _decode(metric="TPOT", unit="ms").predicted
    # One sequence on eight chips: a token every TPOT.
    assert rate == pytest.approx(1e3 / tpot_ms / 8)
    assert _decode(metric="output speed", unit="tok/s/user").predicted == pytest.approx(1e3 / tpot_ms)
    assert _decode(metric="output speed", unit="tok/s").predicted == pytest.approx(1e3 / tpot_ms)
    drafted = dict(parallelism="TP8 MTP3 (1.44 accepted)")
    step, token = (
        _decode(metric=m, unit="ms", **drafted).predicted for m in ("step time", "time per output token")
    )
    assert step == pytest.approx(2.44 * token)
    refused = _decode(metric="TTFT", unit="ms")
    assert refused.predicted is None and "not a property of a decoding step" in refused.excluded


def test_one_serving_run_in_its_units():
    rate, tpot = _service(), _service(metric="median TPOT", unit="ms")
    assert tpot.family == "service TPOT" and rate.family == "throughput"
    assert _service(unit="req/s", metric="request throughput").predicted == pytest.approx(
        rate.predicted * 8 / 1024
    )
    speed = _service(unit="tok/s/user", metric="interactivity")
    assert speed.predicted == pytest.approx(1e3 / tpot.predicted) and speed.lower < speed.upper
    assert _service(unit="s", metric="mean TTFT").predicted == pytest.approx(
        _service(unit="ms", metric="mean TTFT").predicted / 1e3
    )
    # Without a number of users a throughput is the most that the run reaches; a time per token is open.
    assert _service(batch="").predicted >= rate.predicted
    assert "number of users" in _service(batch="", metric="TPOT", unit="ms").excluded


def test_tokens_found_in_a_cache_count_in_a_rate_that_says_so():
    cells = dict(
        chip="H800", count="32", precision="FP8", model="DeepSeek-V3", phase="prefill", batch="16K tok/GPU",
        input_len="4096", parallelism="EP32", unit="tok/s/node",
    )  # fmt: skip
    plain = _decode(metric="input throughput", **cells).predicted
    with_hits = _decode(metric="input throughput with hits", note="56.3% cache hits", **cells).predicted
    assert with_hits == pytest.approx(plain / 0.437)


@pytest.mark.parametrize(
    ("words", "tp", "dp", "ep"), [("DEP8", None, 8, 8), ("TEP4", 4, None, 4), ("DP4TP4", 4, 4, None)]
)
def test_two_degrees_in_one_word(words, tp, dp, ep):
    layout = layout_of(words)
    assert (layout.tp, layout.dp, layout.ep) == (tp, dp, ep)


def test_a_release_in_bf16_is_requantised_where_a_row_says_so():
    cells = dict(
        chip="Ascend 910B", model="Qwen3-235B-A22B", parallelism="TP8", batch="128", input_len="4096"
    )
    full = _decode(precision="BF16", **cells | dict(chip="Ascend 910C")).predicted
    half = _decode(precision="W8A8", **cells | dict(chip="Ascend 910C")).predicted
    assert half > 1.1 * full
    # 235 GB over eight devices of 64 GB fit in one byte a weight.
    assert _decode(precision="W8A8", **cells).predicted
    kimi = _decode(
        model="Kimi-K2-Thinking", precision="W4A16", chip="Ascend 910C", parallelism="EP16", count="16"
    )
    assert kimi.predicted


def test_an_engine_is_tuned_to_the_faster_overlap_unless_the_row_says_which():
    # H20: half-batches leave tiles of its few cores half empty; the wide layout alone does not force them.
    cells = dict(chip="H20", count="16", model="DeepSeek-R1", precision="FP8", batch="48", input_len="4096")
    free = _decode(parallelism="EP16", **cells).predicted
    forced = _decode(parallelism="EP16 + micro-batch", **cells).predicted
    assert free > forced


def test_what_cannot_be_set_up_says_why():
    row = Row(
        id="1", chip="MLU590", count="8", model="DeepSeek-V3.2", precision="INT8", phase="decode", batch="4",
        input_len="4096", parallelism="TP8", metric="throughput", value="1", unit="tok/s/chip",
    )  # fmt: skip
    (result,) = row_results(row, current_engines())
    assert result.excluded.startswith("cannot be set up: load_cluster: 8 × mlu590; no link of it is known")


@pytest.mark.parametrize(
    ("cells", "family", "measured"),
    [
        (dict(chip="Ascend 910B", model="kernel: LayerNorm", precision="FP16", phase="kernel",
              parallelism="1024x4096", metric="time", unit="us"), "kernel", 49.5),
        (dict(chip="Ascend 910C", model="kernel", phase="kernel", batch="128 tok",
              parallelism="EP dispatch, EP16", metric="latency", unit="us"), "kernel", None),
        (dict(chip="GB300", count="256", model="DeepSeek-V3", precision="MXFP8", phase="training",
              parallelism="Megatron Core", metric="model TFLOP/s", unit="TFLOP/s/GPU"), "training", 1233),
    ],
)  # fmt: skip
def test_rows_that_name_a_kernel_or_a_recipe_in_other_words(cells, family, measured):
    result = row_results(Row(id="1", value=str(measured or 100), **cells), current_engines())[0]
    assert result.family == family and result.predicted
    # What is published lies within the bounds: the norm of a library, and NVIDIA's newer release of Megatron.
    assert measured is None or result.lower <= measured <= result.upper
