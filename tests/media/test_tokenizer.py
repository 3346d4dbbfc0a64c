import pytest
import torch
from vector_quantize_pytorch import FSQ as TheirFSQ

from workbench.media.data import load_split, move
from workbench.media.fit_tokenizer import all_videos, fit_tokenizer
from workbench.media.measures import psnr
from workbench.media.quantisers import FSQ, VQ
from workbench.media.tokenizer import MediaTokenizer

PICTURES = load_split().train


def fresh(quantiser=None, width=8):
    torch.manual_seed(0)
    return MediaTokenizer(quantiser, width).eval()


def videos(rand, b=2, t=5, y=6, x=8):
    return rand(b, t, y, x).clamp(-1, 1)


@pytest.mark.parametrize("levels", [(8, 6, 5), (4, 4, 4), (7, 5, 5, 5)])
def test_fsq_is_the_public_implementation(rand, levels):
    z = rand(40, 3, len(levels)) * 2
    theirs, ids = TheirFSQ(levels=list(levels), preserve_symmetry=True)(z)
    ours = FSQ(levels)(z)
    assert torch.equal(ours.ids, ids.long())
    torch.testing.assert_close(ours.values, theirs)
    torch.testing.assert_close(FSQ(levels).values(ours.ids), theirs)


def test_every_fsq_code_comes_back_from_its_values():
    fsq = FSQ((8, 6, 5))
    ids = torch.arange(fsq.n_codes)
    values = fsq.values(ids)
    assert len({tuple(row) for row in values.tolist()}) == 240
    # The values lie on the grid, so rounding them again changes nothing.
    assert torch.equal(fsq(torch.atanh(values.clamp(-0.999, 0.999))).ids, ids)


def test_the_gradient_passes_the_rounding_as_that_of_tanh(rand):
    z = rand(5, 3).requires_grad_()
    FSQ((8, 6, 5))(z).values.sum().backward()
    torch.testing.assert_close(z.grad, 1 - z.detach().tanh() ** 2)


def test_vq_chooses_the_nearest_row_as_a_loop_does(rand):
    vq, z = VQ(7, 3).eval(), rand(2, 5, 3)
    found = vq(z)
    for vector, index in zip(z.flatten(0, 1), found.ids.flatten(), strict=True):
        assert int(index) == min(range(7), key=lambda i: float(((vector - vq.table[i].detach()) ** 2).sum()))
    torch.testing.assert_close(found.values, vq.values(found.ids))


def test_vq_rows_that_nobody_chooses_start_again_where_vectors_are(rand):
    vq, z = VQ(16, 3, patience=3), 10 + rand(64, 3)
    assert len(vq(z).ids.unique()) < 4  # all vectors are far from all rows
    for _ in range(5):
        vq(z)
    assert len(vq(z).ids.unique()) > 10


@pytest.mark.parametrize("quantiser", [FSQ((8, 6, 5)), VQ(11, 4)], ids=["fsq", "vq"])
@pytest.mark.parametrize("t", [1, 3, 5, 9])
def test_shapes_are_those_of_the_contract(rand, quantiser, t):
    tokenizer, frames = fresh(quantiser), videos(rand, t=t)
    ids = tokenizer.encode(frames)
    assert ids.shape == (2, (t + 1) // 2, 3, 4)
    assert 0 <= ids.min() <= ids.max() < tokenizer.quantiser.n_codes
    assert tokenizer.decode(ids).shape == frames.shape


@pytest.mark.parametrize("t", range(5))
def test_codes_and_frames_never_depend_on_later_ones(rand, t):
    tokenizer, frames = fresh(), videos(rand)
    ids = tokenizer.encode(frames)
    changed = frames.clone()
    changed[:, t] = -changed[:, t]
    first = (t + 1) // 2  # latent frame j sees frames up to 2j
    after = tokenizer.encode(changed)
    assert torch.equal(after[:, :first], ids[:, :first])
    assert not torch.equal(after[:, first:], ids[:, first:])

    cut = tokenizer.decode(ids[:, : first + 1])
    torch.testing.assert_close(cut, tokenizer.decode(ids)[:, : cut.shape[1]])


def test_a_video_begins_with_the_codes_of_its_first_frame_as_a_picture(rand):
    tokenizer, frames = fresh(), videos(rand)
    ids = tokenizer.encode(frames)
    for k in range(3):
        assert torch.equal(tokenizer.encode(frames[:, : 2 * k + 1]), ids[:, : k + 1])


def test_rows_of_a_batch_do_not_touch_each_other(rand):
    tokenizer, frames = fresh(), videos(rand, b=3)
    assert torch.equal(tokenizer.encode(frames.flip(0)), tokenizer.encode(frames).flip(0))


@pytest.mark.parametrize(
    ("shape", "scale", "says"),
    [((1, 2, 4, 4), 1, "odd number"), ((1, 1, 5, 4), 1, "even sides"), ((1, 1, 4, 4), 255, "rescale")],
)
def test_frames_that_do_not_fit_are_refused(shape, scale, says):
    with pytest.raises(ValueError, match=says):
        fresh().encode(torch.ones(shape) * scale)


def test_all_videos_come_in_the_order_of_ways():
    few = type(PICTURES)(PICTURES.pixels[:2], PICTURES.labels[:2], PICTURES.is_bold[:2])
    assert torch.equal(all_videos(few)[:2], move(few.pixels, "left", "slowly"))
    assert torch.equal(all_videos(few)[-2:], move(few.pixels, "down", "quickly"))


@pytest.mark.parametrize("quantiser", [FSQ((8, 6, 5)), VQ(64, 4)], ids=["fsq", "vq"])
def test_training_teaches_pictures_and_videos_alike(quantiser):
    tokenizer = fresh(quantiser, width=16)
    held_out = load_split().test.pixels[:60]
    films = move(held_out, "right", "quickly")

    def quality():
        return [
            float(psnr(tokenizer.decode(tokenizer.encode(x)), x).mean()) for x in (held_out[:, None], films)
        ]

    before = quality()
    rows = list(fit_tokenizer(tokenizer, PICTURES, steps=150, photographs=0.1))
    assert len(rows) == 150 and not tokenizer.training
    assert all(after > was + 4 for after, was in zip(quality(), before, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_any_number_of_steps_trains(steps):
    rows = list(fit_tokenizer(fresh(width=8), PICTURES, steps))
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert all(row["loss"] > 0 for row in rows)
