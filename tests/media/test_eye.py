import math

import pytest
import torch

from workbench.media.data import Pictures, load_split
from workbench.media.eye import Eye, captions_by_eye, fit_alone, fit_eye
from workbench.media.losses import losses
from workbench.media.studio import Studio
from workbench.media.tasks import Album, Document, documents
from workbench.media.vision import VisionEncoder, patches

STUDIO = Studio.fresh(0)
DIGITS = load_split()
V = STUDIO.vocabulary


def few(n):
    return Pictures(DIGITS.train.pixels[:n], DIGITS.train.labels[:n], DIGITS.train.is_bold[:n])


@pytest.mark.parametrize(("side", "length"), [((8, 8), 8), ((4, 12), 6), ((6, 8), 8)])
def test_a_span_is_start_rows_with_newlines_and_end(rand, side, length):
    eye, pixels = Eye.fresh(STUDIO.model, 0), rand(3, *side)
    span = eye(pixels)
    assert span.shape == (3, length, 128)
    rows, columns = side[0] // 2, side[1] // 2
    n_h, n_w = -(-rows // 2), -(-columns // 2)
    start, newline, end = eye.marks
    assert torch.equal(span[1, 0], start) and torch.equal(span[1, -1], end)
    for row in range(n_h):
        begin = 1 + row * (n_w + 1)
        assert torch.equal(span[1, begin + n_w], newline)
        # Each picture alone, as V4.1 encodes them, gives the same tokens.
        alone = eye.encoder(patches(pixels[1][None], 2), (rows, columns))
        torch.testing.assert_close(span[1, begin : begin + n_w], alone[row * n_w : (row + 1) * n_w])


def test_many_pictures_are_encoded_as_each_alone(rand):
    torch.manual_seed(0)
    encoder = VisionEncoder(
        patch_values=4, width=16, heads=2, intermediate=24, blocks=2, hidden_size=10, merge=2
    )
    x = rand(2, 3, 15, 4)
    together = encoder(x, (3, 5))
    assert together.shape == (2, 3, 6, 10)
    torch.testing.assert_close(together[1, 2], encoder(x[1, 2], (3, 5)))


def test_the_model_reads_the_span_and_nothing_else_of_the_picture(rand):
    ids = torch.tensor([[V.bos, *[V.null] * 8, *V.words("this is")]])
    plain, span = STUDIO.model(ids), rand(1, 8, 128)
    with STUDIO.model.embedding.seeing(span, begin=1):
        seen = STUDIO.model(ids)
    # Tokens go to experts in groups, so sums may differ in their last bits.
    torch.testing.assert_close(seen[:, 0], plain[:, 0], atol=1e-5, rtol=0)
    assert (seen[:, -1] - plain[:, -1]).abs().max() > 0.1
    # With the nulls' own embeddings in their place nothing has changed.
    with STUDIO.model.embedding.seeing(STUDIO.model.embedding(ids)[:, 1:9], begin=1):
        assert torch.equal(STUDIO.model(ids), plain)
    assert torch.equal(STUDIO.model(ids), plain)


def test_before_the_model_the_projector_learns_and_all_else_rests():
    eye = Eye.fresh(STUDIO.model, 0)
    model, encoder = ({k: x.clone() for k, x in part.state_dict().items()} for part in (STUDIO.model, eye))
    rows = list(fit_eye(eye, STUDIO.model, few(20), steps=12))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert all(torch.equal(x, model[name]) for name, x in STUDIO.model.state_dict().items())
    moved = {name for name, x in eye.state_dict().items() if not torch.equal(x, encoder[name])}
    assert moved == {
        name for name in encoder if name.startswith(("marks", "encoder.norm.", "encoder.projector."))
    }
    assert all(p.requires_grad for part in (STUDIO.model, eye) for p in part.parameters())
    said = captions_by_eye(eye, STUDIO.model, DIGITS.test.pixels[:3])
    assert len(said) == 3 and all(isinstance(text, str) for text in said)


def test_alone_the_eye_learns_to_tell_pictures_apart():
    eye, pictures = Eye.fresh(STUDIO.model, 0), few(60)
    chance = math.log(
        len({(int(a), bool(b)) for a, b in zip(pictures.labels, pictures.is_bold, strict=True)})
    )
    rows = list(fit_alone(eye, pictures, steps=120, seed=1))
    assert rows[0]["loss"] > 0.8 * chance and rows[-1]["loss"] < 0.5 * chance
    assert not eye.training
    # Whatever else it is, it is a function of the seed.
    again = Eye.fresh(STUDIO.model, 0)
    list(fit_alone(again, pictures, steps=120, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(eye.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("steps", [1, 10])
def test_any_number_of_steps_trains_the_eye(steps):
    eye = Eye.fresh(STUDIO.model, 0)
    for rows in (fit_alone(eye, few(20), steps), fit_eye(eye, STUDIO.model, few(20), steps)):
        assert [row["step"] for row in rows] == list(range(1, steps + 1))


def test_losses_by_modality_are_those_of_a_loop():
    written = documents(Album(few(40), STUDIO.tokenizer), V, {"draw": 2, "read": 2, "count": 2}, 0)
    nats = {"words": [], "codes": [], "markers": []}
    for document in written:
        logits = STUDIO.model(torch.tensor([document.ids]))[0].log_softmax(dim=-1)
        for place, label in enumerate(document.labels):
            if label != -100:
                name = V.name(label)
                kind = "codes" if name.startswith("<code") else "markers" if name.startswith("<") else "words"
                nats[kind].append(-logits[place - 1, label].item())
    expected = {kind: sum(own) / len(own) for kind, own in nats.items()}
    assert losses(STUDIO.model, written) == pytest.approx(expected, rel=1e-4)
    words_only = [Document("count", written[-1].ids, written[-1].labels)]
    assert "codes" not in losses(STUDIO.model, words_only)
