import numpy as np

from workbench.plots import media


def test_tiles_lie_side_by_side_with_gaps_between():
    rows = [
        {"label": "one", "frames": np.ones((1, 2, 3))},
        {"label": "film", "frames": np.arange(3)[:, None, None] / 3 * np.ones((3, 2, 2))},
    ]
    figure = media.strips_figure(rows, "t")
    sheet = np.array(figure.data[0].z, dtype=float)
    assert sheet.shape == (6, 9)
    assert (sheet[:2, :3] == 1).all() and np.isnan(sheet[2]).all() and np.isnan(sheet[:, 8]).all()
    assert sheet[3, 3] == sheet[4, 4] == 1 / 3 and np.isnan(sheet[3:, 2]).all()
    assert [a.text for a in figure.layout.annotations] == ["one", "film"]


def test_a_video_has_all_frames_and_a_button_and_a_picture_neither():
    frames = np.random.default_rng(0).random((5, 4, 4))
    figure = media.player_figure(frames, "t")
    assert len(figure.frames) == 5 == len(figure.layout.sliders[0].steps)
    for frame, ours in zip(frames, figure.frames, strict=True):
        np.testing.assert_array_equal(np.array(ours.data[0].z), frame)
    assert figure.layout.updatemenus[0].buttons[0].method == "animate"
    still = media.player_figure(frames[:1], "t")
    assert not still.frames and not still.layout.sliders
    assert figure.layout.yaxis.autorange == "reversed"  # row 0 on top


def test_guidance_lines_are_sorted_and_levels_named():
    rows = [{"measure": "digit", "guidance": g, "value": v} for g, v in ((2, 0.9), (1, 0.7))]
    figure = media.guidance_figure(rows, [{"name": "chance", "value": 0.1}], "t")
    assert list(figure.data[0].x) == [1, 2] and list(figure.data[0].y) == [0.7, 0.9]
    assert figure.layout.shapes[0].y0 == 0.1 and figure.layout.annotations[0].text == "chance"
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text


def test_attention_maps_share_one_scale():
    maps = [{"label": w, "weights": np.full((2, 2), v)} for w, v in (("a", 0.1), ("bold", 0.4))]
    figure = media.attention_figure(np.zeros((4, 4)), maps, "t")
    assert [trace.zmax for trace in figure.data[1:]] == [0.4, 0.4]
    assert [a.text for a in figure.layout.annotations] == ["the picture", "a", "bold"]


def test_bars_say_their_numbers():
    figure = media.shrinking_figure(
        [{"stage": "patches", "count": 2916}, {"stage": "entries", "count": 81}], "t"
    )
    assert list(figure.data[0].y) == [2916, 81] and figure.data[0].text[0] == "2,916"
    assert figure.layout.yaxis.type == "log"
