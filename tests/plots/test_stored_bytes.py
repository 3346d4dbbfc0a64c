import pytest

from workbench.plots.stored_bytes import (
    CONVERSION,
    PART,
    byte_figure,
    byte_map_figure,
    lossless_figure,
    records_figure,
)


def named(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def test_a_nibble_stands_at_its_bits_of_the_byte():
    rows = [
        {
            "lane": "low",
            "fields": (("sign", "0"), ("exponent", "01"), ("mantissa", "0")),
            "lowest_bit": 0,
            "text": "l",
        },
        {
            "lane": "high",
            "fields": (("sign", "1"), ("exponent", "10"), ("mantissa", "1")),
            "lowest_bit": 4,
            "text": "h",
        },
    ]
    figure = byte_figure(rows, "x")
    sign = named(figure, "sign")
    assert dict(zip(sign.y, sign.base, strict=True)) == {"low": 3.5, "high": -0.5}  # bit 3 and bit 7
    ticks = dict(zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True))
    assert (ticks[4], ticks[0]) == ("3", "7")


def test_records_are_drawn_to_scale_and_their_ends_are_written_out():
    rows = [
        {"record": "r", "part": "FP8", "first_byte": 0, "bytes": 448, "text": ""},
        {"record": "r", "part": "scales", "first_byte": 448, "bytes": 7, "text": ""},
        {"record": "q", "part": "FP8", "first_byte": 0, "bytes": 10, "text": ""},
    ]
    figure = records_figure(rows, "x")
    assert (named(figure, "FP8").x, named(figure, "FP8").base) == ((448, 10), (0, 0))
    assert named(figure, "scales").base == (448,)
    assert {(a.y, a.x, a.text) for a in figure.layout.annotations} == {("r", 455, "455"), ("q", 10, "10")}
    with pytest.raises(ValueError, match="'FP5' has no colour"):
        records_figure([{"record": "r", "part": "FP5", "first_byte": 0, "bytes": 1, "text": ""}], "x")


def test_every_byte_of_the_map_has_its_place_and_its_value():
    parts = [{"part": "FP8", "first_byte": 0, "bytes": 5}, {"part": "padding", "first_byte": 5, "bytes": 1}]
    figure = byte_map_figure(bytes([0, 255, 1, 2, 3, 9]), parts, "x", columns=4)
    eights = named(figure, "FP8")
    assert list(zip(eights.x, eights.y, strict=True)) == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]
    assert eights.marker.opacity[0] < eights.marker.opacity[2] < eights.marker.opacity[1] == 1
    assert eights.marker.color == PART["FP8"]
    assert named(figure, "padding").hovertext == ("byte 5: 0x09",)
    with pytest.raises(ValueError, match=r"parts of 6 bytes for a record of 7; .* padding too"):
        byte_map_figure(bytes(7), parts, "x")


def test_the_window_of_exact_shifts_is_what_no_magnitude_misses():
    outcomes = {
        (1.0, -1): "lost", (2.0, -1): "exact, subnormal",
        (1.0, 0): "exact, subnormal", (2.0, 0): "exact, a normal number",
        (1.0, 1): "exact, a normal number", (2.0, 1): "exact, a normal number",
        (1.0, 2): "exact, a normal number", (2.0, 2): "too large",
    }  # fmt: skip
    rows = [{"shift": k, "magnitude": m, "text": "00", "outcome": o} for (m, k), o in outcomes.items()]
    figure = lossless_figure(rows, "x")
    bars = {trace.y[0]: trace for trace in figure.data if trace.name is None}
    assert (bars["exact"].base, bars["exact"].x) == ((-0.5,), (2,))
    assert (bars["exact and normal"].base, bars["exact and normal"].x) == ((0.5,), (1,))
    assert "2 shifts: largest over smallest scale up to 2<sup>1</sup>" in bars["exact"].text
    assert figure.layout.yaxis.categoryarray == ("1", "2", "exact", "exact and normal")
    assert named(figure, "lost").marker.color == CONVERSION["lost"]
