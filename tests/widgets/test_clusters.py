"""Cluster rows and the waves explorer: what they draw is what the simulators say."""

import time

import numpy as np
import pytest

from workbench.chips import Mapping, Workload
from workbench.chips.memory_fit import memory_rows, total_bytes
from workbench.chips.systems import load_system
from workbench.chips.validation.judge import current_engines
from workbench.config import load_config
from workbench.widgets import cluster_rows as rows
from workbench.widgets.clusters import wave_loads, waves_explorer, waves_figure

FLASH = load_config("deepseek-v4-flash")
WORK = Workload(phase="decode", batch=8, context_tokens=8192)


def test_reach_ends_where_the_system_does():
    found = rows.reach_rows(["gb200-nvl72", "cloudmatrix384"])
    assert [r["devices"] for r in found if r["system"] == "GB200 NVL72"] == [72, np.inf]
    # A package is two devices, so 384 packages are 768.
    assert 768 in [r["devices"] for r in found if r["vendor"] == "huawei"]


def test_collectives_have_a_curve_and_points_for_each_kind():
    curves, dots = rows.collective_rows({"b200_sxm": "b200"})
    assert (
        {c["panel"] for c in curves}
        == {d["panel"] for d in dots}
        == {"all-reduce", "all-gather", "all-to-all"}
    )
    assert all(np.all(c["lower"] <= c["expected"]) and np.all(c["expected"] <= c["upper"]) for c in curves)


def test_messages_of_all_stages_count_and_parts_of_memory_add_up():
    one = load_system("h800")
    cases = {"whole": Mapping(dp=8, ep=8), "halves": Mapping(dp=8, ep=8, pp=2)}
    found = {case: rows.message_rows(FLASH, one.cluster(16), WORK, {case: m}) for case, m in cases.items()}
    dispatch = {
        case: sum(r["value"] for r in mine if r["part"] == "dispatch") for case, mine in found.items()
    }
    # Half of the layers in each of two stages. 43 layers leave one more in the first.
    assert dispatch["halves"] == pytest.approx(dispatch["whole"], rel=0.03)
    mine = memory_rows(FLASH, WORK, cases["whole"], one.precision)
    parts = rows.memory_parts("whole", mine)
    assert sum(p["value"] for p in parts) * 2**30 == pytest.approx(float(total_bytes(mine)))
    assert {"experts", "other weights", "key-value cache"} <= {p["part"] for p in parts}


def test_measured_gains_are_the_ledger_s():
    assert {r["tokens"]: r["gain"] for r in rows.measured_gains("deepseek-v4-pro")} == {
        1: 1.61, 512: 1.54, 8192: 1.5, 32768: 1.54,
    }  # fmt: skip


def test_gains_lie_between_one_and_the_number_of_engines():
    curves, dots = rows.gain_rows(["deepseek-v4-flash"], ["b200", "cloudmatrix384"], [1, 64, 8192], 8)
    assert len(curves) == 2 and len(dots) == 4
    assert all(np.all((c["gain"] > 1) & (c["gain"] < 3)) for c in curves)


def test_a_front_trades_waiting_for_throughput_and_its_row_says_so():
    one = load_system("atlas-950-superpod")
    points = rows.front(FLASH, one, 8, Workload(phase="decode", context_tokens=8192), limit_s=0.05)
    row = rows.front_row(one, points)
    assert np.all(np.diff(row["interval_s"]) >= 0) and np.all(np.diff(row["rate"]) > 0)
    assert max(row["interval_s"]) <= 0.05 and "batch" in row["text"][0] and row["vendor"] == "huawei"


def test_published_rows_keep_to_their_phases_and_contexts():
    found = rows.published_rows("deepseek-v4-pro", ["atlas-950-superpod", "h800"], phases=("decode",))
    assert found and {r["system"] for r in found} == {"Atlas 950 (950DT)"}


def test_ratios_show_one_figure_a_row_and_no_exact_ones():
    found = list(rows.ratio_rows(("decode",), current_engines(), "950DT"))
    labels = [r["label"] for r in found]
    assert len(labels) == len(set(labels)) and all("time per token" in label for label in labels)
    assert all(r["lower"] < r["ratio"] < r["upper"] for r in found)


def test_more_ranks_on_a_prompt_shorten_it():
    cases = {"CP1": Mapping(dp=16, ep=16), "CP8": Mapping(dp=2, cp=8, ep=16)}
    slow, quick = rows.prefill_rows(FLASH, load_system("h800").cluster(16), 65536, cases)
    assert slow["seconds"] > 5 * quick["seconds"] and quick["lower"] < quick["seconds"] < quick["upper"]


def test_layouts_are_named_in_the_words_of_engines():
    assert rows.layout_text(Mapping(dp=4, attention_tp=2, ep=8, overlap="waves")) == "DP4 TP2 EP8, waves"
    assert rows.layout_text(Mapping()) == "one device"


def test_loads_of_waves_are_even_without_skew_and_the_same_every_time():
    assert wave_loads(4, 0.0) == [1.0] * 4
    assert wave_loads(8, 1.0) == wave_loads(8, 1.0) and max(wave_loads(8, 1.0)) > 3 * min(wave_loads(8, 1.0))


def test_the_explorer_follows_and_redraws_in_time():
    explorer = waves_explorer()
    explorer._controls["system"].value = "h20"
    assert "H20" in explorer.figure.layout.title.text
    start = time.process_time()
    waves_figure("deepseek-v4-pro", "cloudmatrix384", 4096, 32, 1.0, 64)
    assert time.process_time() - start < 0.4


def test_figures_call_models_by_their_makers_names():
    assert {d["panel"] for d in rows.measured_gains("deepseek-v4-flash")} == {"DeepSeek-V4-Flash"}
    title = waves_figure("deepseek-v4-pro", "b200", 8, 2, 0.0).layout.title.text
    assert title.startswith("DeepSeek-V4-Pro: ")
