"""The figures of chapter 19 show the rows they are given."""

import numpy as np
import pytest

from workbench.plots.v41 import (
    MODEL,
    drafts_figure,
    gates_figure,
    layer_map_figure,
    lookup_figure,
    prefill_figure,
    recall_figure,
    replay_figure,
    sizes_figure,
)


def by_name(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_the_map_has_a_bar_from_each_owner_to_its_last_reader():
    base = dict(ratio=2, has_memory=False, feeds_draft=False, mode="reuse")
    rows = [
        {**base, "layer": 0, "is_encoder": True, "entries": None, "selection": None, "has_memory": True},
        {**base, "layer": 1, "is_encoder": True, "entries": 1, "selection": 1},
        {**base, "layer": 2, "is_encoder": False, "entries": 1, "selection": 2},
        {**base, "layer": 3, "is_encoder": False, "entries": 1, "selection": 2, "feeds_draft": True},
    ]
    figure = layer_map_figure(rows)
    spans = sorted((s.x0, s.x1, s.y0) for s in figure.layout.shapes if s.type == "rect")
    expected = {
        "entries": [(1, 3)],
        "selection": [(1, 1), (2, 3)],
        "memory": [(0, 0)],
        "draft reads": [(3, 3)],
    }
    heights = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    for name, bars in expected.items():
        drawn = [
            (round(x0 + 0.42), round(x1 - 0.42))
            for x0, x1, y0 in spans
            if y0 == pytest.approx(heights[name] - 0.32)
        ]
        assert drawn == bars


def test_sizes_are_drawn_in_their_units_and_memory_on_top_of_the_backbone():
    rows = [
        dict(model="V4.1-Flash", quantity="parameters", part="backbone", value=5e11),
        dict(model="V4.1-Flash", quantity="parameters", part="memory", value=2e11),
        dict(model="V4.1-Flash", quantity="active", part="written token", value=16e9),
        dict(model="V4.1-Flash", quantity="active", part="token of a prompt", value=8e9),
        dict(model="V4.1-Flash", quantity="cache", part="entries and index keys", value=890),
    ]
    figure = sizes_figure(rows)
    (memory,), (cache,) = by_name(figure, "memory"), by_name(figure, "entries and index keys")
    assert list(memory.x) == [200] and list(memory.base) == [500]
    assert list(cache.x) == [890] and cache.text[0] == "890"
    assert by_name(figure, "token of a prompt")[0].x[0] == 8
    titles = [figure.layout[axis].title.text for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert all("billion" in title for title in titles[:2]) and "bytes" in titles[2]


def test_prefill_is_work_per_token_and_models_keep_their_colours():
    figure = prefill_figure([dict(model="V4-Pro", tokens=1000, flop=5e13)], marked=128)
    assert list(figure.data[0].y) == [50] and figure.data[0].line.color == MODEL["V4-Pro"]
    assert "GFLOP" in figure.layout.yaxis.title.text and figure.layout.shapes[0].x0 == 128


def test_replay_shows_the_median_and_both_lengths():
    rows = [dict(prompt=p, replay=r, kl=10.0 ** -(r + p)) for p in range(3) for r in (1, 2, 9)]
    figure = replay_figure(rows, window=2, exact=9)
    (median,) = by_name(figure, "median")
    np.testing.assert_allclose(median.y, [1e-2, 1e-3, 1e-7])
    assert [shape.x0 for shape in figure.layout.shapes] == [2, 9]


def test_lookups_tell_new_rows_from_old_ones():
    cells = [dict(token=0, order=2, row=7, first=0), dict(token=1, order=2, row=7, first=0)]
    new, old = lookup_figure(cells, ["a", "A"]).data
    assert (list(new.x), list(old.x)) == ([0], [1])


def test_recall_gates_and_drafts_are_summed_up_as_their_words_say():
    curves = [dict(model="memory", seed=s, step=5, recall=s / 2) for s in range(3)]
    (mean,) = by_name(recall_figure(curves), "memory")
    assert list(mean.y) == [0.5]
    (box,) = gates_figure([dict(place="A", gate=v / 100) for v in range(101)]).data
    assert (box.q1[0], box.median[0], box.upperfence[0]) == pytest.approx((0.25, 0.5, 0.95))
    slots = [dict(draft="d", seed=s, slot=1, accepted=a) for s, a in enumerate((0.2, 0.4, 0.9))]
    left, right = drafts_figure(slots, [dict(draft="d", least=0.5, checked=3, tokens=2.5)]).data
    assert left.y[0] == pytest.approx(0.5) and left.error_y.array[0] == pytest.approx(0.4)
    assert (right.x[0], right.y[0], right.text[0]) == (3, 2.5, "0.5")
