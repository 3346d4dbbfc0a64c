import itertools
import math

import pytest

from workbench.plots.number_formats import (
    FIELD,
    PRECISION,
    add_bits,
    bits_figure,
    in_order,
    number_lines_figure,
    power_axis,
    relative_error_figure,
    rounding_figure,
)

FOUR = {
    "format": "FP4", "fields": (("sign", "1"), ("exponent", "01"), ("mantissa", "1")), "code": "0xB",
    "value": "−1.5", "error": "−6 %", "below": "−2", "above": "−1", "position": 0.4, "goes_to": 0.5,
}  # fmt: skip
WIDE = {"format": "FP32", "fields": (("sign", "0"), ("exponent", "0" * 8), ("mantissa", "1" * 23)),
        "code": "", "value": "", "error": ""}  # fmt: skip
LINES = [
    {"format": name, "value": value, "precision": bits}
    for name, value, bits in (
        ("b", -3.0, "1 bit"),
        ("b", 0.5, "0 bits"),
        ("a", 12.0, "3 bits"),
        ("a", 0.0, "0 bits"),
    )
]


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_each_bit_is_one_square_and_a_clear_bit_is_pale():
    figure = bits_figure([FOUR], "x")
    (exponent,) = traces(figure, "exponent")
    assert exponent.text == ("0", "1")
    assert exponent.marker.opacity[0] < exponent.marker.opacity[1] == 1
    assert exponent.marker.color == FIELD["exponent"]
    assert set(exponent.x) == {1}


def test_mantissas_begin_at_the_same_place_in_every_lane():
    figure = bits_figure([WIDE, FOUR], "x")
    (mantissa,), (sign,) = traces(figure, "mantissa"), traces(figure, "sign")
    first = {
        lane: min(b for b, y in zip(mantissa.base, mantissa.y, strict=True) if y == lane)
        for lane in ("FP4", "FP32")
    }
    assert first == {"FP4": -0.5, "FP32": -0.5}
    assert dict(zip(sign.y, sign.base, strict=True)) == {"FP32": -9.5, "FP4": -3.5}
    assert figure.layout.yaxis.categoryarray == ("FP32", "FP4")
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.layout.yaxis.type == "category"  # lanes may be called "20" and "300"


def test_code_value_and_error_stand_beside_the_bits_where_there_is_room():
    figure = bits_figure([WIDE, FOUR], "x")
    texts = [t for t in figure.data if t.type == "scatter" and t.mode == "text" and t.xaxis == "x"]
    assert [t.text for t in texts] == [("0xB",), ("−1.5",), ("−6 %",)]
    assert all(t.y == ("FP4",) for t in texts)


def test_the_gap_shows_neighbours_number_and_choice():
    figure = bits_figure([WIDE, FOUR], "x")
    right = [t for t in figure.data if t.xaxis == "x2"]
    assert [t.text[0] for t in right if t.mode == "text"] == ["−2", "−1"]
    disc, diamond = (t for t in right if t.mode == "markers")
    assert (disc.x, diamond.x) == ((0.5,), (0.4,))
    assert diamond.marker.symbol == "diamond"


def test_a_field_without_a_colour_is_refused():
    with pytest.raises(ValueError, match="'regime' has no colour"):
        add_bits(bits_figure([], "x"), [("posit", (("regime", "01"),), 0)])


def test_a_linear_number_line_is_cut_at_its_reach_and_says_where_the_format_ends():
    figure = number_lines_figure(LINES, "x", reach=8)
    assert [t.name for t in figure.data] == ["0 bits", "1 bit", "3 bits"]  # by precision, not by appearance
    (pale,) = traces(figure, "1 bit")
    assert (pale.x, pale.y, pale.marker.line.color) == ((-3.0,), ("b",), PRECISION["1 bit"])
    assert [(a.y, a.text) for a in figure.layout.annotations] == [("a", "→ 12")]
    assert figure.layout.yaxis.categoryarray == ("b", "a")
    assert figure.layout.xaxis.type is None


def test_a_logarithmic_number_line_leaves_out_what_is_not_positive():
    figure = number_lines_figure(LINES, "x")
    assert sorted(x for t in figure.data for x in t.x) == [0.5, 12.0]
    assert figure.layout.xaxis.type == "log"
    with pytest.raises(ValueError, match="'9 bits' has no colour"):
        number_lines_figure([{"format": "a", "value": 1.0, "precision": "9 bits"}], "x")


def test_ticks_of_a_power_axis_are_powers_of_two_inside_its_range():
    axis = power_axis([2.0**-22, 3e4], ticks=12)
    powers = [math.log2(tick) for tick in axis["tickvals"]]
    assert all(p == int(p) for p in powers)
    assert 6 <= len(powers) <= 13
    assert len({b - a for a, b in itertools.pairwise(powers)}) == 1
    low, high = axis["range"]
    assert low < math.log10(axis["tickvals"][0]) < math.log10(axis["tickvals"][-1]) < high
    assert low < math.log10(2.0**-22)
    assert math.log10(3e4) < high
    assert axis["ticktext"][powers.index(0.0)] == "2<sup>0</sup>"


def test_errors_are_percent_and_sorted_by_magnitude():
    rows = [{"format": "a", "magnitude": m, "error": m / 100} for m in (4.0, 2.0)]
    (line,) = relative_error_figure(rows, "x").data
    assert (line.x, line.y) == ((2.0, 4.0), (2.0, 4.0))
    assert line.line.shape == "hv"


def test_the_exact_line_is_pale_and_roundings_keep_their_colour_in_both_panels():
    means = [{"rounding": r, "number": 1.0, "mean": 1.0} for r in ("exact", "nearest", "by chance")]
    sums = [{"rounding": r, "step": 1, "sum": 2.0} for r in ("exact", "nearest", "by chance")]
    figure = rounding_figure(means, sums, "x")
    for name in ("exact", "nearest", "by chance"):
        left, right = traces(figure, name)
        assert left.line.color == right.line.color
        assert (left.showlegend, right.showlegend) == (True, False)
    assert len({t.line.color for t in figure.data}) == 3
    assert figure.layout.yaxis2.title.text == "sum"


def test_names_follow_the_order_of_their_palette():
    assert in_order(FIELD, ["mantissa", "sign", "mantissa"]) == ["sign", "mantissa"]
    with pytest.raises(ValueError, match="no colour"):
        in_order(FIELD, ["sgin"])
