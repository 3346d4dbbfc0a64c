import pytest
import torch
import torch.nn.functional as F

from workbench.media.generate import Request, stream, write
from workbench.media.grammar import Grammar
from workbench.media.model import MediaModel, media_config
from workbench.media.quantisers import FSQ
from workbench.media.vocabulary import WORDS, Vocabulary
from workbench.model import Transformer
from workbench.model.sampling import GREEDY

FEW = FSQ((3, 2, 2))
V = Vocabulary(FEW.n_codes)


def fresh(seed=0):
    generator = torch.Generator().manual_seed(seed)
    config = media_config(V).replace(hidden_size=32, moe_intermediate_size=16, initializer_range=0.3)
    return MediaModel(V, FEW, config, generator=generator).eval()


def requests():
    """Of three lengths, one with a picture in it, one that has begun a video."""
    picture = V.span(torch.tensor([[[0, 5], [11, 3], [7, 7]]]), False, 1)
    begun = [*V.words("film a"), V.bov, *(V.first_size + n - 1 for n in (3, 2, 3))]
    return [
        Request.of(V, "draw a bold three"),
        Request.of(V, "this is", picture),
        Request([V.bos, *begun], [V.bos, V.null, V.null, *begun[2:]]),
    ]


def by_full_passes(model, request, guidance, n):
    """Greedy, without a cache, one row: the slow way."""
    ids, unasked, out = list(request.ids), list(request.unasked), []
    machine = Grammar(V, ids)
    while len(out) < n and not machine.is_done:
        with torch.no_grad():
            a, b = (model(torch.tensor([row]))[0, -1] for row in (ids, unasked))
        logits = b + guidance * (a - b) if machine.in_codes else a
        logits[~machine.allowed(n - len(out))] = -torch.inf
        token = int(logits.argmax())
        machine.read(token)
        ids.append(token)
        out.append(token)
        unasked.append(V.null if V.name(token) in WORDS else token)
    return out


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_cached_rows_of_many_lengths_write_what_full_passes_write(guidance):
    model = fresh()
    written = write(model, requests(), guidance=guidance, sampling=GREEDY, max_new_tokens=40)
    for request, row in zip(requests(), written, strict=True):
        if guidance == 0:
            # The request alone is withheld: what it writes itself it reads.
            expected = by_full_passes(model, Request(request.unasked, request.unasked), 1.0, 40)
        else:
            expected = by_full_passes(model, request, guidance, 40)
        assert row == expected


def test_guidance_changes_what_is_drawn():
    model, request = fresh(), requests()[2:]
    drawn = {
        tuple(write(model, request, guidance=w, sampling=GREEDY, max_new_tokens=24)[0]) for w in (0, 1, 8)
    }
    assert len(drawn) == 3


def test_the_seed_decides_and_rows_do_not_touch_each_other():
    model = fresh()

    def draw(chosen, seed):
        return write(model, chosen, generator=torch.Generator().manual_seed(seed), max_new_tokens=40)

    together = draw(requests(), 3)
    assert draw(requests(), 3) == together
    assert draw(requests(), 4) != together
    assert draw(requests()[:1], 3)[0] == together[0]


def test_a_video_that_was_begun_is_always_ended():
    for seed in range(3):
        row = write(
            fresh(), requests()[2:], generator=torch.Generator().manual_seed(seed), max_new_tokens=24
        )[0]
        header, codes = V.spans(requests()[2].ids + row)[0]
        assert header.is_video and codes.shape == (3, 2, 3)


def test_streamed_tokens_are_the_written_ones():
    model = fresh()
    steps = list(stream(model, requests()[:2], sampling=GREEDY, max_new_tokens=12))
    rows = [[step[i] for step in steps if step[i] is not None] for i in range(2)]
    assert rows == write(model, requests()[:2], sampling=GREEDY, max_new_tokens=12)


def test_text_goes_through_v4_unchanged():
    model = fresh()
    plain = Transformer(model.config)
    own = {
        k: x for k, x in model.state_dict().items() if "code_proj" not in k and "embed_tokens.pos" not in k
    }
    plain.load_state_dict(own)
    ids = torch.tensor([V.words("after three comes four two plus two is four")])
    assert torch.equal(model(ids), plain(ids))


def test_the_embedding_of_a_code_is_the_written_sum():
    model, ids = fresh(), torch.tensor([requests()[1].ids])
    x = model.embedding(ids)[0]
    e = model.embedding
    at = 4 + 3  # bos, boi and two sizes make four; the code of row 1, column 1
    code = int(ids[0, at]) - V.first_code
    values = torch.tensor([2 * (code % 3) / 2 - 1, 2.0 * (code // 3 % 2) - 1, 2.0 * (code // 6) - 1])
    expected = (
        e.weight[ids[0, at]]
        + e.code_proj.weight @ values
        + e.position_bias[0, 0]
        + e.position_bias[1, 1]
        + e.position_bias[2, 1]
    )
    torch.testing.assert_close(x[at], expected)
    torch.testing.assert_close(x[1], e.weight[V.boi])


def test_the_loss_weighs_codes_half():
    model, ids = fresh(), torch.tensor([[*requests()[1].ids, V.eos]])
    labels = ids.clone()
    labels[0, :3] = -100
    logp = F.log_softmax(model(ids)[0, :-1].detach(), dim=-1)
    total, weight = 0.0, 0.0
    for t in range(3, ids.shape[1]):
        token = int(ids[0, t])
        w = 0.5 if token >= V.first_code else 1.0
        total, weight = total - w * float(logp[t - 1, token]), weight + w
    assert model.loss(ids, labels=labels).item() == pytest.approx(total / weight, rel=1e-5)


def test_gradients_reach_what_was_added():
    model, ids = fresh().train(), torch.tensor([[*requests()[1].ids, V.eos]])
    model.loss(ids).backward()
    assert model.embedding.code_proj.weight.grad.abs().sum() > 0
    used = model.embedding.position_bias.grad.abs().sum(dim=-1) > 0
    # One frame, three rows, two columns.
    assert used.sum(dim=1).tolist() == [1, 3, 2]


def test_negative_guidance_is_refused():
    with pytest.raises(ValueError, match="guidance=-1"):
        write(fresh(), requests(), guidance=-1)
