import pytest

from workbench.media.chat import IMAGE, Kind, encode_with_pictures, kinds
from workbench.media.vision import picture_size
from workbench.model.chat import Message, encode_messages

SIZE = (448, 336)  # 12 rows of 15 tokens: 194 positions


def picture(size=SIZE):
    return {"type": "image", "size": size}


def text(said):
    return {"type": "text", "text": said}


def test_without_pictures_it_is_the_chat_format_itself():
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    expected = encode_messages([Message.from_dict(m) for m in messages], "chat")
    assert encode_with_pictures(messages).prompt == expected


def test_every_picture_is_a_run_of_its_own_length_where_it_stood():
    found = encode_with_pictures(
        [{"role": "user", "content": [text("first"), picture(), text("then"), picture((800, 800))]}]
    )
    runs = found.prompt.text.replace("first\n\n" + IMAGE * 194 + "\n\nthen\n\n" + IMAGE * 422, "HERE")
    assert "HERE" in runs and IMAGE not in runs
    assert [size.n_tokens for size in found.sizes] == [194, 422]
    assert sum(piece.text == IMAGE and piece.is_control for piece in found.prompt.pieces) == 194 + 422


def test_a_user_who_types_the_token_does_not_make_a_picture():
    found = encode_with_pictures([{"role": "user", "content": f"look: {IMAGE}"}])
    assert not any(piece.text == IMAGE for piece in found.prompt.pieces)


def test_the_kinds_of_a_span_are_those_of_the_written_rule():
    size = picture_size(*SIZE)
    found = kinds(size)
    assert len(found) == size.n_tokens == 12 * 16 + 2
    assert found[0] == Kind.START == 0 and found[-1] == Kind.END == 3
    assert [i for i, kind in enumerate(found) if kind == Kind.NEWLINE] == [16 * row + 16 for row in range(12)]
    assert found.count(Kind.PICTURE) == 12 * 15


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "assistant", "content": [picture()]}, "needs pictures in user messages"),
        ({"role": "user", "content": [{"type": "image"}]}, "'size'"),
        ({"role": "user", "content": "a \ufffc b"}, r"U\+FFFC"),
        ({"role": "user", "content": [picture((0, 5))]}, "0 x 5"),
    ],
)
def test_what_cannot_be_rendered_is_refused(message, says):
    with pytest.raises(ValueError, match=says):
        encode_with_pictures([message])
