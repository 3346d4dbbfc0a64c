"""Figures of optimiser, packing and schedules show the numbers they are given."""

import pytest

from workbench.plots.optimiser import (
    buckets_figure,
    packing_figure,
    scalar_map_figure,
    schedule_figure,
    spectra_figure,
    steps_figure,
    sums_figure,
)


def test_spectra_are_sorted_and_relative():
    figure = spectra_figure([{"name": "a", "values": [1.0, 4.0, 2.0]}, {"name": "b", "values": [3.0]}], "t")
    assert [list(trace.y) for trace in figure.data] == [[1.0, 0.5, 0.25], [1.0]]
    assert figure.layout.yaxis.type == "log"


def test_a_map_has_its_values_and_its_distances():
    curves = [{"name": "x", "sigma": [0.1, 1.0], "value": [0.9, 1.0]}]
    after, distance = scalar_map_figure(curves, "t").data
    assert list(after.y) == [0.9, 1.0]
    assert list(distance.y) == pytest.approx([0.1, 1e-16])


def test_steps_are_coloured_by_what_they_do():
    figure = steps_figure([[0.1, 0.2], [0.5, 0.6], [0.9, 1.1], [1.0, 1.0]], 2, "t")
    columns = figure.data[:4]
    assert [set(column.x) for column in columns] == [{0}, {1}, {2}, {3}]
    start, steep, steep_too, pinning = (column.marker.color for column in columns)
    assert steep == steep_too and len({start, steep, pinning}) == 3


def test_buckets_are_filled_where_a_rank_holds_few():
    rows = [
        {"model": "custom", "ranks": r, "padding_percent": p, "most_matrices": n, "is_few": n <= 5}
        for r, p, n in ((8, 30.0, 4), (4, 5.0, 9))
    ]
    (trace,) = buckets_figure(rows, 10, "t").data
    assert (list(trace.x), list(trace.y)) == ([4, 8], [5.0, 30.0])
    assert trace.marker.color[0] == "white" != trace.marker.color[1]


def test_sums_packing_and_schedules_keep_their_rows():
    (line,) = sums_figure([{"name": "ring", "ranks": r, "error": 0.1 * r} for r in (1, 2)], "t").data
    assert (list(line.x), list(line.y)) == ([1, 2], [0.1, 0.2])
    rows = [{"name": "best fit", "row_tokens": 64, "cut_percent": 0.0, "padding_percent": 3.0}]
    assert [list(trace.y) for trace in packing_figure(rows, "t").data] == [[0.0], [3.0]]
    (rate,) = schedule_figure([{"name": "Flash", "steps": [0, 9], "rate": [0.0, 1e-4]}], "t").data
    assert list(rate.y) == [0.0, 1e-4]


@pytest.mark.parametrize("figure", [sums_figure, spectra_figure, packing_figure, schedule_figure])
def test_every_axis_has_a_title(figure):
    axes = [*figure([], "t").select_xaxes(), *figure([], "t").select_yaxes()]
    assert axes and all(axis.title.text for axis in axes)
