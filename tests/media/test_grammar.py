import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.media.grammar import Grammar
from workbench.media.places import code_places
from workbench.media.vocabulary import ALIGNMENT, MARKERS, WORDS, Header, Vocabulary

V = Vocabulary(240)


def walk(seed, room, prompt=()):
    """A document written by choosing anything allowed, markers far more often than words."""
    draw = torch.Generator().manual_seed(seed)
    machine, ids = Grammar(V, [V.bos, *prompt]), [V.bos, *prompt]
    for left in range(room, 0, -1):
        weights = machine.allowed(left).double()
        weights[[V.boi, V.bov]] *= 40
        ids.append(int(torch.multinomial(weights, 1, generator=draw)))
        machine.read(ids[-1])
        if machine.is_done:
            break
    return ids, machine


def places_by_a_loop(ids):
    out, sizes, index = [], [], 0
    for token in ids:
        if token in (V.boi, V.bov):
            sizes, index = [], 0
        elif V.first_size <= token < V.first_size + 8:
            sizes.append(token - V.first_size + 1)
        if token >= V.first_code:
            y, x = sizes[-2:]
            out.append([index // (y * x), index % (y * x) // x, index % x])
            index += 1
        else:
            out.append([-1, -1, -1])
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 120))
def test_whatever_is_chosen_every_picture_is_whole_and_room_is_kept(seed, room):
    ids, machine = walk(seed, room)
    assert machine.is_done or len(ids) == 1 + room
    assert not machine.in_codes
    for header, codes in V.spans(ids):  # raises where something is cut off
        assert codes.shape == (header.t, header.y, header.x)
    assert code_places(torch.tensor([ids]), V)[0].tolist() == places_by_a_loop(ids)
    codes = [i for i, token in enumerate(ids) if token >= V.first_code]
    begins = [i for i in codes if ids[i - 1] < V.first_code]
    assert all(begin % ALIGNMENT == 0 for begin in begins)


def test_walks_do_reach_pictures_and_videos():
    found = [header for seed in range(20) for header, _ in V.spans(walk(seed, 120)[0])]
    assert {header.is_video for header in found} == {True, False}
    assert len({header.n_codes for header in found}) > 8


@pytest.mark.parametrize("is_video", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_a_span_comes_back_from_wherever_it_lies(is_video, at):
    codes = torch.randint(240, (3 if is_video else 1, 2, 5), generator=torch.Generator().manual_seed(at))
    ids = [V.bos, *V.words("a " * at), *V.span(codes, is_video, 1 + at), V.eos]
    assert ids.index(V.first_code + int(codes[0, 0, 0])) % ALIGNMENT == 0
    [(header, found)] = V.spans(ids)
    assert header.is_video == is_video and torch.equal(found, codes)
    assert Grammar(V, ids).is_done


def test_packed_documents_do_not_share_places():
    span = V.span(torch.zeros(2, 2, 3, dtype=torch.long), True, 1)
    ids = [V.bos, *span, V.eos, V.bos, *span, V.eos]
    assert code_places(torch.tensor([ids]), V)[0].tolist() == places_by_a_loop(ids)


def test_a_code_without_its_past_is_refused():
    with pytest.raises(ValueError, match="whole past"):
        code_places(torch.tensor([[V.bos, V.first_code]]), V)


@pytest.mark.parametrize("cut", [1, 2, 5, 7])
def test_a_cut_span_is_refused(cut):
    ids = V.span(torch.zeros(1, 2, 2, dtype=torch.long), False, 0)
    with pytest.raises(ValueError, match="needs"):
        V.spans(ids[:-cut])


def test_a_token_out_of_place_is_refused_by_name():
    with pytest.raises(ValueError, match=r"<eoi>.*'sizes'"):
        Grammar(V, [V.boi, V.eoi])


def test_too_little_room_for_what_has_begun_is_said():
    begun = V.begin(Header(False, 1, 4, 4), 0)
    with pytest.raises(ValueError, match="16 codes to come"):
        Grammar(V, begun).allowed(room=16)
    assert Grammar(V, begun).allowed(room=17).sum() == 240


@pytest.mark.parametrize("header", [Header(False, 2, 4, 4), Header(True, 3, 9, 4), Header(True, 0, 4, 4)])
def test_sizes_that_cannot_be_said_are_refused(header):
    with pytest.raises(ValueError, match="sizes from 1 to 8"):
        V.begin(header, 0)


def test_a_word_outside_the_closed_set_is_named():
    with pytest.raises(ValueError, match="'llama'"):
        V.words("draw a llama")
    assert V.text(V.words("draw a bold three")) == "draw a bold three"


def test_markers_words_sizes_and_codes_do_not_overlap():
    assert V.size == len(MARKERS) + len(WORDS) + 8 + 240 == len(set(V.names)) + 240
    assert V.size - len(WORDS) < 415  # what V4's tokenizer reserves for other media
