"""Rows that the pages on number formats draw, against worked numbers, `ml_dtypes` and torch's own types."""

import math
import time

import ml_dtypes
import numpy as np
import pytest
import torch

from workbench.widgets.number_formats import (
    SCALES,
    SMALL,
    WIDE,
    error_rows,
    finite_values,
    lossless_rows,
    number_explorer,
    number_figure,
    number_rows,
    parse_number,
    rounding_rows,
    value_rows,
)

EVERY = WIDE | SMALL | SCALES


def row(number, name, **policy):
    return number_rows(number, {name: "it"}, **policy)[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.3", 0.3), ("-3e4", -3e4), ("1/4", 0.25), ("2^-9", 2.0**-9), ("1.5*2^-9", 1.5 * 2**-9), ("2**3", 8),
     ("−1/3", -1 / 3), (" 3 · 2^2 ", 12), ("inf", math.inf), ("-2^2/4", -1.0)],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(text, value):
    assert parse_number(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text", ["", "three", "1/0", "2^^3", "1e999e", "2^99999", "1,5", "(-8)^(1/3)", "2^1/0"]
)
def test_what_is_no_number_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"parse_number: got .* it must be a number such as 0.1, -3e4"):
        parse_number(text)


def test_the_first_row_is_fp32_bit_by_bit():
    (first,) = number_rows(-0.1, {})
    bits = format(int(np.float32(-0.1).view(np.uint32)), "032b")
    assert first["fields"] == (("sign", bits[0]), ("exponent", bits[1:9]), ("mantissa", bits[9:]))


@pytest.mark.parametrize(
    ("number", "name", "code", "value", "neighbours"),
    [
        (0.3, "e4m3fn", "0x2A", "0.3125", ("0.28125", "0.3125")),
        (0.3, "e5m2", "0x35", "0.3125", ("0.25", "0.3125")),
        (0.3, "e2m1", "0x1", "0.5", ("0", "0.5")),
        (-3.1, "e3m2", "0x32", "−3", ("−3.5", "−3")),
        (17, "e4m3fn", "0x58", "16", ("16", "18")),
        (0.3, "hif8", "0x32", "0.3125", ("0.28125", "0.3125")),
        (-2, "hif8", "0x90", "−2", ("−2.25", "−1.875")),
        (1000, "bf16", "0x447A", "1000", ("996", "1004")),
        (100, "e2m3", "0x1F", "7.5", ("7.5", "no more")),
        (-0.25, "e8m0", "0x7D", "0.25", ("0.125", "0.5")),
    ],
)
def test_code_value_and_neighbours_are_those_of_the_worked_tables(number, name, code, value, neighbours):
    found = row(number, name)
    assert (found["code"], found["value"]) == (code, value)
    assert (found["below"], found["above"]) == neighbours
    assert "".join(bits for _, bits in found["fields"]) == format(
        int(code, 16), f"0{len(''.join(b for _, b in found['fields']))}b"
    )


def test_the_number_and_what_it_becomes_stand_in_their_gap():
    found = row(0.3, "e4m3fn")
    assert found["position"] == pytest.approx((0.3 - 0.28125) / 0.03125)
    assert (found["goes_to"], found["error"]) == (1, "+4.17 %")
    exact = row(1.0, "e4m3fn")  # gaps below and above a power of two differ: 1/16 and 1/8
    assert exact["error"] == "exact"
    assert exact["position"] == exact["goes_to"] == pytest.approx(1 / 3)
    lost = row(0.2, "e2m1")
    assert (lost["goes_to"], lost["error"]) == (0, "−100 %")


def test_ties_and_overflow_follow_the_policy():
    assert [row(2.5, "e2m1", ties=rule)["value"] for rule in ("even", "away", "zero")] == ["2", "3", "2"]
    past = {rule: row(480.0, "e4m3fn", overflow=rule) for rule in ("saturate", "spec")}
    assert (past["saturate"]["value"], past["saturate"]["above"], past["saturate"]["goes_to"]) == (
        "448",
        "no more",
        0,
    )
    assert (past["spec"]["value"], past["spec"]["above"], past["spec"]["goes_to"]) == ("NaN", "NaN", 1)
    assert row(464.0, "e4m3fn")["position"] == pytest.approx(0.5)  # the middle to the 480 that is not there
    assert row(-1e9, "e5m2", overflow="spec")["below"] == "−∞"


def test_what_is_no_number_shows_the_code_for_it_or_that_there_is_none():
    assert (row(math.nan, "e4m3fn")["value"], row(math.nan, "e4m3fn")["code"]) == ("NaN", "0x7F")
    assert row(math.nan, "e2m1") == {
        "format": "it", "fields": (), "code": "", "value": "no code for NaN", "error": ""
    }  # fmt: skip
    assert row(math.inf, "e5m2", overflow="spec")["value"] == "∞"
    assert row(0.0, "e8m0")["error"] == "no zero"
    assert row(0.0, "e4m3fn")["error"] == "exact"


@pytest.mark.parametrize(
    "number", [0.0, -0.0, 1e-30, 0.3, -7.7, 448.0, 1e9, math.inf, -math.inf, math.nan, 3e39]
)
@pytest.mark.parametrize("overflow", ["saturate", "spec"])
def test_every_number_can_be_drawn_in_every_format(number, overflow):
    rows = number_rows(number, EVERY, overflow=overflow)
    assert [r["format"] for r in rows] == ["FP32", *EVERY.values()]
    for found in rows:
        if found.get("position") is not None:
            assert 0 <= found["position"] <= 1
            assert 0 <= found["goes_to"] <= 1
    number_figure(number, overflow=overflow)


def test_values_are_those_of_ml_dtypes_and_torch():
    for name, dtype in (
        ("e2m1", ml_dtypes.float4_e2m1fn),
        ("e3m2", ml_dtypes.float6_e3m2fn),
        ("e4m3fn", ml_dtypes.float8_e4m3fn),
    ):
        bits = ml_dtypes.finfo(dtype).bits
        theirs = np.unique(np.arange(2**bits, dtype=np.uint8).view(dtype).astype(np.float32))
        np.testing.assert_array_equal(finite_values(name), theirs[np.isfinite(theirs)])
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2fnuz).float()
    torch.testing.assert_close(finite_values("e5m2fnuz"), codes[codes.isfinite()].unique())


def test_precision_is_the_mantissa_of_each_binade():
    rows = value_rows({"e4m3fn": "a", "hif8": "b", "int8": "c"})
    of = {(r["format"], r["value"]): r["precision"] for r in rows}
    assert [of["a", v] for v in (2.0**-9, 2.0**-8, 1.5 * 2**-7, 1.0, 448.0, -1.0)] == [
        "0 bits", "1 bit", "2 bits", "3 bits", "3 bits", "3 bits"
    ]  # fmt: skip
    assert [of["b", v] for v in (2.0**-20, 2.0**-10, 0.03125, 0.125, 15.0, 16.0, 256.0)] == [
        "0 bits", "1 bit", "2 bits", "3 bits", "3 bits", "2 bits", "1 bit"
    ]  # fmt: skip
    assert [of["c", v] for v in (1.0, 3.0, 8.0, 100.0)] == ["0 bits", "1 bit", "3 bits", "4 and more"]


def test_the_worst_error_of_a_binade_is_half_a_step():
    errors = {
        (r["format"], r["magnitude"]): r["error"] for r in error_rows({"e4m3fn": "a", "hif8": "b"}, -24, 18)
    }
    # The middle of the first gap: half a step over itself, (1/16) / (1 + 1/16) with three bits.
    assert errors["a", 1.0] == pytest.approx(1 / 17, rel=0.05)
    assert errors["b", 2.0**-7] == pytest.approx(1 / 9, rel=0.05)
    assert errors["a", 2.0**-12] == 1
    assert errors["a", 2.0**15] == pytest.approx(1 - 448 / 2**16, rel=1e-3)


def test_fp4_survives_in_fp8_for_shifts_from_minus_eight_to_six():
    rows = lossless_rows(range(-12, 10))
    theirs = (np.array([r["magnitude"] * 2.0 ** r["shift"] for r in rows], np.float32)).astype(
        ml_dtypes.float8_e4m3fn
    )
    for found, stored in zip(rows, theirs, strict=True):
        number = found["magnitude"] * 2.0 ** found["shift"]
        is_exact = float(stored) == number
        assert found["outcome"].startswith("exact") == is_exact, found
        if is_exact:
            assert found["text"] == f"{int(stored.view(np.uint8)):02X}"
            assert found["outcome"].endswith("subnormal") == (number < 2**-6)
        else:
            assert found["outcome"] == ("too large" if number > 448 else "lost")
    lost = {r["shift"] for r in rows if not r["outcome"].startswith("exact")}
    assert set(range(-12, 10)) - lost == set(range(-8, 7))


def test_nearest_forgets_small_steps_and_chance_does_not():
    rows = rounding_rows("bf16", 1.0, 0.001, draws=400)
    last = {r["rounding"]: r["sum"] for r in rows["sums"] if r["step"] == 400}
    assert last["to nearest"] == 1
    assert last["exact"] == pytest.approx(1.4, abs=1e-3)
    assert abs(last["stochastic"] - 1.4) < 4 * 2**-7 * math.sqrt(400 * 0.128 * 0.872)
    by_number = {}
    for r in rows["means"]:
        by_number.setdefault(r["number"], {})[r["rounding"]] = r["mean"]
    assert len(by_number) == 61
    for number, mean in by_number.items():
        assert mean["exact"] == number
        assert abs(mean["to nearest"] - number) <= 2**-8
        assert abs(mean["stochastic"] - number) < 5 * 2**-7 * 0.5 / math.sqrt(400)
    assert rounding_rows("bf16", 1.0, 0.001, draws=5) == rounding_rows("bf16", 1.0, 0.001, draws=5)


def test_the_explorer_follows_its_controls_and_refuses_in_a_line():
    explorer = number_explorer()
    _, controls, output = explorer.view.children
    number, ties, overflow = controls.children
    number.value = "2.5"
    before = explorer.figure.to_json()
    ties.value = "away"
    assert explorer.figure.to_json() != before
    number.value = "1000"
    before = explorer.figure.to_json()
    overflow.value = "spec"
    assert explorer.figure.to_json() != before
    number.value = "many"
    assert output.outputs[0]["data"]["text/plain"].startswith("parse_number: got 'many'")


def test_a_redraw_does_not_keep_a_reader_waiting():
    number_figure("0.3")  # the first call builds the tables
    took = []
    for _ in range(3):
        start = time.process_time()
        number_figure("-1/3")
        took.append(time.process_time() - start)
    assert min(took) < 0.5  # 0.03 s where it was written; half a second means something is wrong
