"""What people write in many ways is read as one: the same row in other words has the same prediction."""

import csv
import dataclasses

import pytest

from workbench.chips.command import DATA
from workbench.chips.validation.judge import current_engines, row_results, validate
from workbench.chips.validation.rows import read_measurements
from workbench.chips.validation.wording import plain

ROWS = {row.id: row for row in read_measurements(DATA / "measurements.csv")}
ENGINES = current_engines()


@pytest.mark.parametrize("id", list(ROWS))
def test_the_package_s_own_rows_stay_what_they_say(id):
    row = ROWS[id]
    assert plain(plain(row)) == plain(row)
    for name in ("id", "system", "chip", "source", "note"):
        assert getattr(plain(row), name) == getattr(row, name)


@pytest.mark.parametrize(
    ("id", "column", "others"),
    [
        ("99", "model", ["deepseek_v4_flash", "DSV4-Flash", "deepseek-ai/DeepSeek-V4-Flash"]),
        ("5", "model", ["V3", "deepseek_v3", "DeepSeek V3 671B", "DSV3"]),
        ("33", "model", ["DeepSeek V3_2", "deepseek-v3.2-exp"]),
        ("99", "phase", ["Serving", "online serving", "end-to-end", "E2E", "service"]),
        ("236", "phase", ["Decoding", "generation", "decode step", "Token generation", "output"]),
        ("5", "phase", ["prefilling", "Context", "prompt"]),
        ("308", "phase", ["pre-training", "Pretrain", "Training"]),
        ("348", "phase", ["Kernels", "micro-benchmark", "op"]),
        ("308", "precision", ["bfloat16", "BF-16", "16-bit"]),
        ("2", "precision", ["FP-8", "float8", "FP8 (W8A8)", "8-bit float", "fp8_e4m3"]),
        ("213", "precision", ["8-bit int", "INT-8", "W8A8"]),
        ("8", "unit", ["tokens per second per node", "tokens/s/node", "tok/s per node", "TPS/node"]),
        ("99", "unit", ["tokens/sec/GPU", "tokens per second per GPU", "t/s/GPU"]),
        ("348", "unit", ["µs", "μs", "microseconds", "usec"]),
        ("219", "unit", ["percent", "pct", "per cent"]),
        ("103", "parallelism", ["SGLang DP=4 attention + EP=4 (MegaMoE), no draft",
                                "sglang dp4 attention + ep-4 (megamoe), no draft"]),
        ("68", "parallelism", ["p4+d32(ep8), MTP", "P4+D32(EP 8), mtp", "P4 + D32(EP=8), MTP"]),
        ("308", "parallelism", ["TP=1 PP=2 VP=4 EP=32", "tp1, pp2, vp4, ep32", "TP-1 PP-2 VP-4 EP-32"]),
        ("335", "parallelism", ["ep8 low latency", "EP=8 low latency"]),
        ("335", "metric", ["DISPATCH / COMBINE LATENCY", "dispatch_/_combine_latency"]),
        ("50", "batch", ["4.096e+03", "4096.0", "4,096", " 4096 "]),
        ("2", "value", ["1.480e+04", "14,800", "14800.0", "14\u202f800"]),
    ],
)  # fmt: skip
def test_other_words_for_the_same_run_are_predicted_alike(id, column, others):
    expected = row_results(ROWS[id], ENGINES)
    assert all(r.predicted for r in expected)
    for words in others:
        found = row_results(dataclasses.replace(ROWS[id], **{column: words}), ENGINES)
        assert [r.predicted for r in found] == [pytest.approx(r.predicted) for r in expected], words
        assert [r.measured for r in found] == [pytest.approx(r.measured) for r in expected], words


def rewritten(path, rows, header=str, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow([header(name) for name in rows[0]])
        writer.writerows(row.values() for row in rows)
    return path


def table(name):
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("argument", "name", "cells"),
    [
        ("kernels", "kernels_nvidia",
         {"gpu": lambda v: "NVIDIA " + v.upper(), "op": str.upper, "dtype": str.upper,
          "distribution": str.title,
          "model_or_shape": lambda v: v.upper() if v.startswith("deep") else v,
          "latency_us": lambda v: f"{float(v):.9e}"}),
        ("serving", "silicon_deepseek",
         {"system": str.upper, "precision": str.upper, "model_path": lambda v: "deepseek-ai/" + v,
          "backend": lambda v: {"trtllm": "TensorRT-LLM", "sglang": "SGLang"}.get(v, v),
          "mode": lambda v: {"agg": "Aggregated", "disagg": "Disaggregated"}[v], "isl": lambda v: v + ".0"}),
    ],
)  # fmt: skip
def test_tables_in_other_words_and_with_another_header_are_judged_alike(tmp_path, argument, name, cells):
    rows = table(name)[3::97]
    expected = validate(**{argument: rewritten(tmp_path / "a.csv", rows)})
    other = [row | {k: write(row[k]) for k, write in cells.items()} | {"remark": "x, y"} for row in rows]
    found = validate(**{argument: rewritten(tmp_path / "b.csv", other, lambda n: f" {n.title()} ", ";")})
    assert sum(r.predicted is not None for r in expected) > 5
    assert [r.predicted for r in found] == [r.predicted and pytest.approx(r.predicted) for r in expected]


@pytest.mark.parametrize("name", ["kernels_nvidia", "silicon_deepseek", "measurements"])
def test_a_table_without_rows_is_judged_without_a_result(tmp_path, name):
    empty = tmp_path / "empty.csv"
    empty.write_text(",".join(table(name)[0]) + "\n", encoding="utf-8")
    argument = {"kernels_nvidia": "kernels", "silicon_deepseek": "serving"}.get(name, name)
    assert validate(**{argument: empty}) == []
