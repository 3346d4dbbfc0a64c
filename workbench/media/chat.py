"""V4's chat format with pictures among the text, as V4.1 has them.

A picture is a run of one control token, as long as its span: a start, rows of tokens with a newline after
each, an end. Which position is what stands beside the ids, for the ids are all alike.

Source: DeepSeek-V4.1-Flash, inference code (image processor, model).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from workbench.media.vision import PictureSize, picture_size
from workbench.model.chat import Message, Piece, Prompt, encode_messages

IMAGE = "<｜deepseek_image｜>"
IMAGE_ID = 129264  # in V4.1's vocabulary; V4 reserves that id and never uses it
_HOLD = "\ufffc"  # Unicode's own sign for an object in running text


class Kind(IntEnum):
    """What a position of a prompt is; numbered as in the release."""

    TEXT = -1
    START = 0
    PICTURE = 1
    NEWLINE = 2
    END = 3


@dataclass(frozen=True)
class PicturePrompt:
    """A rendered conversation, and the pictures in it in order: what each is brought to."""

    prompt: Prompt
    sizes: tuple[PictureSize, ...]


def encode_with_pictures(
    messages: Sequence[Mapping[str, Any]], thinking_mode: Any = "chat", **options: Any
) -> PicturePrompt:
    """Messages in the OpenAI chat format, with blocks {"type": "image", "size": (width, height)}.

    The options are those of `encode_messages`. Text around a picture is as it is around any block.

    Raises:
        ValueError: a picture outside a user's message or without a size, text that holds the sign a picture
            is held by, or as `encode_messages` and `picture_size`.
    """
    sizes: list[PictureSize] = []
    turns = [Message.from_dict(_held(message, sizes)) for message in messages]
    pieces: list[Piece] = []
    waiting = iter(sizes)
    for piece in encode_messages(turns, thinking_mode, **options).pieces:
        first, *others = piece.text.split(_HOLD)
        pieces.append(Piece(first, piece.is_control))
        for text in others:
            pieces += [Piece(IMAGE, is_control=True)] * next(waiting).n_tokens
            pieces.append(Piece(text))
    return PicturePrompt(Prompt.join(pieces), tuple(sizes))


def kinds(size: PictureSize) -> list[Kind]:
    """What each position of a picture's span is."""
    rows, columns = size.token_grid
    return [Kind.START, *([Kind.PICTURE] * columns + [Kind.NEWLINE]) * rows, Kind.END]


def _held(message: Mapping[str, Any], sizes: list[PictureSize]) -> dict[str, Any]:
    """The message with a sign in place of every picture, whose sizes go to the list."""
    content = message.get("content")
    blocks = [{"type": "text", "text": content or ""}] if not isinstance(content, list) else content
    texts = []
    for block in blocks:
        if block.get("type") != "image":
            if _HOLD in str(block.get("text", "")):
                raise ValueError(
                    f"encode_with_pictures: text of the {message.get('role')} holds U+FFFC, the sign that a "
                    f"picture is held by; needs text without it; take it out"
                )
            texts.append(block)
            continue
        if message.get("role") != "user" or "size" not in block:
            raise ValueError(
                f"encode_with_pictures: got {block} in a message of the {message.get('role')}; needs "
                f"pictures in user messages, with 'size': (width, height); move or complete it"
            )
        sizes.append(picture_size(*block["size"]))
        texts.append({"type": "text", "text": _HOLD})
    return {**message, "content": texts} if isinstance(content, list) else dict(message)
