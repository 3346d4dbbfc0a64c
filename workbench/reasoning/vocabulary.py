"""The words that policies read and write: small enough for a network of half a million parameters.

A text is words with spaces between them. Every number from 0 to 99 is one word. The turn markers do the
work of V4's own: `<assistant>` ends a question, the answer begins with `<think>` or, to answer at once,
with `</think>`, and ends with `<end>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

PAD, BOS, END, ASSISTANT, THINK, ANSWER = "<pad>", "<bos>", "<end>", "<assistant>", "<think>", "</think>"
CHINESE = tuple("〇一二三四五六七八九")  # a second way to write 0 to 9, for the language reward
NODES = tuple("ABCDEFGH")

_SPECIAL = (PAD, BOS, END, ASSISTANT, THINK, ANSWER)
_MODES = ("<low>", "<high>", "<max>")
_TALK = ("<judge>", "yes", "no", "<call>", "</call>", "<result>", "</result>", "<system>", "<user>")
_SIGNS = tuple("+-*/=()!?:;>,")
_TASKS = ("add", "chain", "parity", "solve", "countdown", "sort", "path", "run", "find")
_OPERATIONS = ("reverse", "rotate", "swap", "increment", "double", "negate")


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers: a word's number is its place in `words`."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words) or any(word.split() != [word] for word in self.words):
            raise ValueError(
                f"Vocabulary: got {len(self.words)} words, {len(set(self.words))} different; needs different "
                f"words without spaces; remove the doubles and the spaces"
            )

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def id(self, word: str) -> int:
        """The number of one word.

        Raises:
            ValueError: an unknown word.
        """
        if word not in self._ids:
            raise ValueError(
                f"Vocabulary: got the word {word!r}; it knows {len(self)} words; write with those, or make a "
                f"Vocabulary that has it"
            )
        return self._ids[word]

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's words.

        Raises:
            ValueError: an unknown word.
        """
        return [self.id(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these numbers."""
        return " ".join(self.words[number] for number in ids)


VOCABULARY = Vocabulary(
    (
        *_SPECIAL,
        *_MODES,
        *_TALK,
        *_SIGNS,
        *_TASKS,
        *_OPERATIONS,
        *NODES,
        *CHINESE,
        *(str(n) for n in range(100)),
    )
)
"""The words of every task here. Markers come first, numbers last."""
