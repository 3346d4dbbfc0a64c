import pytest
import torch

from workbench.media.data import CANVAS, DIRECTIONS, Pictures, load_split, move
from workbench.media.grammar import Grammar
from workbench.media.motion import directions
from workbench.media.quantisers import FSQ
from workbench.media.studio import MediaRecipe, Studio, train_backbone, train_tokenizer
from workbench.media.tasks import TASKS, Album, documents
from workbench.media.tokenizer import LEVELS
from workbench.media.vocabulary import DIGIT_WORDS, Vocabulary
from workbench.training.loader import Loader
from workbench.training.loop import n_predicted

V = Vocabulary(FSQ(LEVELS).n_codes)


class Exact:
    """Stands in for a tokenizer: a code says the brightest pixel of its patch, of the later frame."""

    def encode(self, frames):
        kept = frames[:, ::2].unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
        return ((kept + 1) * 8).round().long()


def pixels_of(codes):
    return codes.float().repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) / 8 - 1


def few(n=200):
    train = load_split().train
    return Pictures(train.pixels[:n], train.labels[:n], train.is_bold[:n])


@pytest.fixture(scope="module")
def album():
    return Album(few(), Exact())


@pytest.mark.parametrize("task", TASKS)
def test_every_document_is_well_formed_and_ends_with_a_learned_eos(album, task):
    for document in documents(album, V, {task: 12}, seed=0):
        assert document.task == task and len(document.ids) == len(document.labels)
        assert Grammar(V, document.ids).is_done
        assert document.labels[-1] == V.eos and document.labels[0] == -100
        learned = [i for i, label in enumerate(document.labels) if label != -100]
        assert all(document.labels[i] == document.ids[i] != V.pad for i in learned)


@pytest.mark.parametrize("task", ["film", "watch", "animate"])
def test_the_words_of_a_video_are_what_its_pixels_show(album, task):
    for document in documents(album, V, {task: 20}, seed=1):
        header, codes = V.spans(document.ids)[-1]
        assert header.is_video and codes.shape == (3, CANVAS // 2, CANVAS // 2)
        text = [word for word in V.text(document.ids).split() if word in DIRECTIONS]
        assert not text or directions(pixels_of(codes)[None]) == text


def test_the_words_of_a_picture_are_its_label(album):
    by_codes = {
        tuple(codes.flatten().tolist()): name for codes, name in zip(album.pictures, album.names, strict=True)
    }
    for document in documents(album, V, {"read": 30}, seed=0):
        [(_, codes)] = V.spans(document.ids)
        assert V.text(document.ids).endswith(f"this is {by_codes[tuple(codes.flatten().tolist())]} <eos>")
    for index, name in enumerate(album.names):
        digit = int(album.facts.labels[index])
        assert name == f"a {'bold' if album.facts.is_bold[index] else 'thin'} {DIGIT_WORDS[digit]}"


def test_the_next_digit_follows_and_counting_is_right(album):
    for document in documents(album, V, {"next": 20, "count": 40}, seed=2):
        words = V.text(document.ids).split()
        if "plus" in words:
            at = words.index("plus")
            a, b, c = (DIGIT_WORDS.index(words[i]) for i in (at - 1, at + 1, at + 3))
            assert c == (a + b) % 10
        else:
            at = words.index("after")
            a, b = (DIGIT_WORDS.index(words[i]) for i in (at + 1, at + 3))
            assert b == (a + 1) % 10


def test_a_tenth_is_drawn_without_its_words_and_as_long(album):
    drawn = documents(album, V, {"draw": 400}, seed=0)
    nulls = [d for d in drawn if V.null in d.ids]
    assert 20 < len(nulls) < 65
    assert {len(d.ids) for d in drawn} == {len(d.ids) for d in nulls}
    assert all(d.ids.count(V.null) == 4 for d in nulls)


def test_the_seed_decides_and_unknown_tasks_are_named(album):
    assert documents(album, V, {"film": 5}, 0) == documents(album, V, {"film": 5}, 0)
    assert documents(album, V, {"film": 5}, 0) != documents(album, V, {"film": 5}, 1)
    with pytest.raises(ValueError, match="'paint'"):
        documents(album, V, {"paint": 1}, 0)


def test_an_album_without_the_digit_that_follows_is_refused():
    lone = Album(few(1), Exact())
    with pytest.raises(ValueError, match="give a larger album"):
        documents(lone, V, {"next": 1}, 0)


def test_videos_are_the_moved_pictures(album):
    video = Exact().encode(move(few().pixels, "right", "quickly"))
    assert torch.equal(album.videos[:, 3], video)


def test_a_short_training_lowers_both_losses_and_comes_back_from_files(tmp_path):
    recipe = MediaRecipe(
        tokenizer_steps=30, photographs=0.0, steps=12, rows=2, mixture=dict(draw=60, read=60)
    )
    studio, pictures = Studio.fresh(0), few()
    losses = [row["loss"] for row in train_tokenizer(studio, pictures, recipe, 0)]
    assert losses[-1] < 0.8 * losses[0]
    rows = list(train_backbone(studio, pictures, recipe, 0))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert not studio.model.training

    studio.save(tmp_path)
    again, ids = Studio.load(tmp_path), torch.tensor([V.words("after three comes")])
    assert torch.equal(again.model(ids), studio.model(ids))
    frames = pictures.pixels[:2, None]
    assert torch.equal(again.tokenizer.encode(frames), studio.tokenizer.encode(frames))
    (tmp_path / "tokenizer.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.safetensors"):
        Studio.load(tmp_path)


def test_documents_are_never_cut_by_packing(album):
    written = documents(album, V, dict.fromkeys(TASKS, 10), seed=0)
    loader = Loader([d.ids for d in written], 160, 0, labels=[d.labels for d in written])
    learned = sum(label != -100 for d in written for label in d.labels)
    assert n_predicted(loader.peek(len(loader))) == learned
