import json

import pytest
import torch

from workbench.media import study
from workbench.media.asking import Wish, ask, captions, frames_of, make, stream_frames, text_of
from workbench.media.data import Digits, Pictures, load_split, move
from workbench.media.evaluate import (
    cut_out,
    judge_videos,
    measure_eye,
    measure_interleaved,
    measure_text,
    picture_wishes,
    video_wishes,
)
from workbench.media.judge import train_judge
from workbench.media.studio import MediaRecipe, Studio
from workbench.media.tasks import MOTIONS, Album

STUDIO = Studio.fresh(0)
TEST = load_split().test


def test_wishes_say_what_is_asked():
    assert Wish(3, True).text == "draw a bold three"
    assert Wish(0, False, ("left", "slowly")).text == "film a thin zero moving left slowly"
    assert len(picture_wishes(2)) == 40 == 2 * len({w.text for w in picture_wishes(1)})
    assert len({w.text for w in video_wishes()}) == 160


def test_frames_come_out_as_the_tokenizer_says(rand):
    frames = rand(1, 5, 12, 12).clamp(-1, 1)
    codes = STUDIO.tokenizer.encode(frames)
    answer = STUDIO.vocabulary.span(codes[0], True, 7)
    assert torch.equal(frames_of(STUDIO, answer), STUDIO.tokenizer.decode(codes)[0])
    assert frames_of(STUDIO, STUDIO.vocabulary.words("this is")) is None


def test_streamed_frames_are_certain_and_end_as_the_whole():
    wish, options = Wish(4, True, ("up", "quickly")), dict(guidance=2.0, max_new_tokens=80)
    n_videos = 0
    for seed in range(4):
        draw = [torch.Generator().manual_seed(seed) for _ in range(2)]
        parts = list(stream_frames(STUDIO, wish, generator=draw[0], **options))
        [whole] = make(STUDIO, [wish], generator=draw[1], **options)
        assert bool(parts) == (whole is not None)
        for share, frames in parts:
            assert 0 < share <= 1
            torch.testing.assert_close(frames, whole[: len(frames)], atol=1e-5, rtol=0)
        if parts:
            assert parts[-1][0] == 1.0 and len(parts[-1][1]) == len(whole)
            n_videos += len(parts) > 1
    assert n_videos > 0


def test_captions_are_words_and_batches_change_nothing(monkeypatch):
    codes = list(STUDIO.tokenizer.encode(TEST.pixels[:5, None]))
    said = captions(STUDIO, codes)
    monkeypatch.setattr("workbench.media.asking.BATCH", 2)
    assert captions(STUDIO, codes) == said and len(said) == 5
    answers = ask(STUDIO, ["shows"], STUDIO.tokenizer.encode(move(TEST.pixels[:1], "up", "slowly")))
    assert isinstance(text_of(STUDIO, answers[0]), str)


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_digit_is_cut_out_of_every_frame_where_it_is(motion):
    cut = cut_out(move(TEST.pixels[:3], *motion), motion)
    assert torch.equal(cut, TEST.pixels[:3, None].expand(-1, 5, -1, -1))


def test_true_videos_are_judged_right_and_missing_or_wrong_ones_are_not():
    judge = train_judge(load_split().train, 0, width=24, steps=600)
    chosen = (judge.read(TEST.pixels) == TEST.labels).nonzero().flatten()[:8].tolist()
    wishes = [Wish(int(TEST.labels[i]), False, MOTIONS[n]) for n, i in enumerate(chosen)]
    films = [move(TEST.pixels[i : i + 1], *w.motion)[0] for i, w in zip(chosen, wishes, strict=True)]
    best = judge_videos(judge, wishes, films)
    assert best["whole"] == best["direction_right"] == best["all_frames_right"] == 1
    assert best["step_error_px"] < 1e-3 and best["steadiness"] > 0.999

    backwards = judge_videos(judge, wishes, [film.flip(0) for film in films])
    assert backwards["direction_right"] == 0 and backwards["step_error_px"] > 0.9
    halved = judge_videos(judge, wishes, [None if n % 2 else film for n, film in enumerate(films)])
    assert halved["whole"] == halved["frames_right"] == 0.5


def test_the_words_of_an_answer_are_its_words_alone():
    v = STUDIO.vocabulary
    ids = v.words("comes seven draw a thin seven")
    span = v.span(STUDIO.tokenizer.encode(TEST.pixels[:1, None])[0], False, at=len(ids))
    assert text_of(STUDIO, [*ids, *span, v.eos]) == "comes seven draw a thin seven"


def test_an_untrained_model_cannot_count():
    assert measure_text(STUDIO)["text_right"] < 0.2


def test_the_next_picture_is_right_where_words_and_digit_are(monkeypatch):
    digits, judge = few_digits(), train_judge(load_split().train, 0, width=24, steps=600)
    album, v, asked = Album(digits.test, STUDIO.tokenizer), STUDIO.vocabulary, []
    names = "zero one two three four five six seven eight nine".split()
    known = {(int(d), bool(b)): i for i, (d, b) in enumerate(zip(TEST.labels, TEST.is_bold, strict=True))}

    def answers(studio, texts, shown, *, step=1, **options):
        asked.append(list(texts))
        found = []
        for text in texts:
            _, _, _, style, name, after = text.split()
            digit = (names.index(name) + step) % 10
            ids = v.words(f"{name} comes {names[digit]} draw a {style} {names[digit]}")
            # The true pixels in place of codes: what the tokenizer loses is not the question here.
            found.append((ids, TEST.pixels[known[digit, style == "bold"]][None]))
            assert after == "after"
        return found

    def measured(**options):
        generator = torch.Generator().manual_seed(0)
        monkeypatch.setattr(
            "workbench.media.evaluate.ask", lambda *args, **more: answers(*args, **more | options)
        )
        return measure_interleaved(STUDIO, album, digits, judge, generator, guidance=1.0)

    monkeypatch.setattr(
        "workbench.media.evaluate.captions", lambda studio, codes: ["a bold six"] * len(codes)
    )
    monkeypatch.setattr("workbench.media.evaluate.text_of", lambda studio, answer: v.text(answer[0]))
    monkeypatch.setattr("workbench.media.evaluate.frames_of", lambda studio, answer: answer[1])
    best = measured()
    assert asked[0] == [f"this is {name} after" for name in album.names]
    assert asked[1] == ["this is a bold six after"] * 40
    assert best["told_whole"] == best["told_words"] == best["told_style"] == 1 and best["told_drawn"] > 0.9
    # Read as a six each time, the next is a seven: right for the sixes alone.
    sixes = (digits.test.labels == 6) & digits.test.is_bold
    assert best["read_words"] == pytest.approx(float(sixes.float().mean()))
    wrong = measured(step=2)
    assert wrong["told_words"] == 0 and wrong["told_drawn"] < 0.1 and wrong["told_whole"] == 1
    monkeypatch.setattr("workbench.media.evaluate.frames_of", lambda studio, answer: None)
    assert measured()["told_drawn"] == measured()["told_style"] == measured()["told_whole"] == 0


def test_an_eye_that_sees_is_told_from_one_that_does_not(monkeypatch):
    album = Album(few_digits().test, STUDIO.tokenizer)
    assert measure_eye(STUDIO, album)["eye_digit"] < 0.4
    monkeypatch.setattr("workbench.media.evaluate.captions_by_eye", lambda *_: album.names)
    assert measure_eye(STUDIO, album) == {"eye_digit": 1.0, "eye_whole_caption": 1.0}


def few_digits():
    split = load_split()
    parts = [Pictures(p.pixels[:40], p.labels[:40], p.is_bold[:40]) for p in (split.train, split.test)]
    return Digits(*parts, split.median_ink)


def test_a_study_is_recorded_resumed_and_not_mixed(tmp_path, monkeypatch):
    def measures(trained, digits, judge, seed):
        return {
            "text": lambda: measure_text(trained.studio),
            "pictures 1.0": lambda: {"seed": seed},
            "pictures 2.0": lambda: {"twin": measure_text(trained.twin)},
        }

    monkeypatch.setattr(study, "measures", measures)
    monkeypatch.setattr(study, "train_judge", lambda pictures, seed: None)
    monkeypatch.setattr(study, "load_split", few_digits)
    recipe = MediaRecipe(
        tokenizer_steps=3, photographs=0.0, steps=2, rows=2, mixture=dict(count=60), polish_steps=2,
        polish=dict(count=60), polish_rounds=2, twin_steps=2, eye_alone_steps=2, eye_steps=2,
    )  # fmt: skip
    record = tmp_path / "record.json"
    study.run_study(tmp_path, [0], record, recipe)
    first = study.read_study(record)
    assert [run["seed"] for run in first["runs"]] == [0]
    assert set(first["runs"][0]["pictures"]) == {"1.0", "2.0"}
    parts = {f"{part}_s" for part in ("tokenizer", "backbone", "model", "model-2", "eye", "twin")}
    assert set(first["runs"][0]["seconds"]) == parts
    assert first["runs"][0]["text_by_round"][-1] == pytest.approx(first["runs"][0]["text"]["text_right"])
    assert len(first["runs"][0]["text_by_round"]) == 2
    assert first["recipe"]["steps"] == 2 and 0 <= first["runs"][0]["text"]["text_right"] <= 1

    # Another process may have been quicker: seeds come in order, and none is lost or done twice.
    study.run_study(tmp_path, [1, 0], record, recipe)
    second = study.read_study(record)
    assert [run["seed"] for run in second["runs"]] == [0, 1]
    # What is kept beside the record is what was measured.
    kept = study.read_studio(record)
    assert measure_text(kept) == second["runs"][0]["text"]
    assert second["runs"][1]["pictures"]["1.0"] == {"seed": 1}
    assert json.dumps(second["runs"][0]) == json.dumps(first["runs"][0])
    with pytest.raises(ValueError, match="another --output"):
        study.run_study(tmp_path, [0], record, MediaRecipe(steps=3))


def test_measuring_goes_on_where_it_was_broken_off(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.measure({"a": lambda: {"n": 1}, "b x": fail}, tmp_path / "kept.json")
    found = study.measure({"a": fail, "b x": lambda: 2}, tmp_path / "kept.json")
    assert found == {"a": {"n": 1}, "b": {"x": 2}}
