"""The page of all families: its numbers, what stands outside the bounds, aims."""

import numpy as np

from workbench.plots.validation import families_figure

POINTS = [
    {"family": "kernel", "label": "a", "ratio": 1.1, "inside": True},
    {"family": "kernel", "label": "b", "ratio": 9.0, "inside": False},
    {"family": "decode", "label": "c", "ratio": 0.8, "inside": True},
]
ERRORS = [
    {"family": "kernel", "how": "all rows", "rows": 2, "median": 0.1, "p90": 0.4, "aim": 0.15},
    {"family": "decode", "how": "all rows", "rows": 1, "median": 0.2, "p90": 0.2, "aim": None},
    {"family": "kernel", "how": "system left out", "rows": 2, "median": 0.12, "p90": 0.5, "aim": 0.15},
]


def test_every_row_has_a_dot_and_every_error_a_mark():
    figure = families_figure(POINTS, ERRORS, "All of it")
    assert figure.layout.title.text == "All of it"
    kernel, wide, decode, none, whole, apart, aim = figure.data
    assert list(kernel.x) == [1.1] and list(wide.x) == [4.0] and list(decode.x) == [0.8] and not none.x
    assert "9.00 of measured" in wide.text[0]
    assert (kernel.marker.symbol, wide.marker.symbol) == ("circle", "circle-open")
    assert np.all(np.abs(np.array([*kernel.y, *wide.y])) <= 0.3) and abs(decode.y[0] - 1) <= 0.3
    assert list(whole.x) == [10, 20] and list(apart.x) == [12]
    np.testing.assert_allclose(whole.error_x.array, [30, 0])
    assert list(aim.x) == [15]
    assert list(figure.layout.yaxis.ticktext) == ["kernel (2)", "decode (1)"]
    assert "predicted" in figure.layout.xaxis.title.text and "%" in figure.layout.xaxis2.title.text
