"""Documents into rows of one length: best fit, so that few documents are cut.

Cutting one long string of all documents every row_tokens tokens wastes nothing, but severs nearly every
document once a row, also those that would have fitted whole. Best fit severs only documents longer than
a row, and pays with some padding.

Report: section 4.1 (packing that limits truncation, attention within a sample); the method is that of
arXiv 2404.10830.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Tokens begin..end-1 of one document."""

    document: int
    begin: int
    end: int


def best_fit(lengths: Sequence[int], row_tokens: int) -> list[list[Piece]]:
    """Pack documents of these lengths into rows of at most row_tokens tokens.

    A longer document is cut into whole rows and a rest. Then every piece, the longest first, goes where
    the least room is left over.

    Raises:
        ValueError: there is no document, one is empty, or row_tokens is below 1.
    """
    _check(lengths, row_tokens)
    pieces = [
        Piece(document, begin, min(begin + row_tokens, length))
        for document, length in enumerate(lengths)
        for begin in range(0, length, row_tokens)
    ]
    pieces.sort(key=lambda piece: (piece.begin - piece.end, piece))
    rows: list[list[Piece]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for piece in pieces:
        size = piece.end - piece.begin
        place = bisect_left(rooms, (size, 0))
        if place < len(rooms):
            room, row = rooms.pop(place)
        else:
            room, row = row_tokens, len(rows)
            rows.append([])
        rows[row].append(piece)
        if room > size:
            insort(rooms, (room - size, row))
    return rows


def cut_everywhere(lengths: Sequence[int], row_tokens: int) -> list[list[Piece]]:
    """The baseline: one string of all documents, cut every row_tokens tokens.

    Raises:
        ValueError: as `best_fit`.
    """
    _check(lengths, row_tokens)
    rows: list[list[Piece]] = [[]]
    room = row_tokens
    for document, length in enumerate(lengths):
        begin = 0
        while begin < length:
            if not room:
                rows.append([])
                room = row_tokens
            end = min(begin + room, length)
            rows[-1].append(Piece(document, begin, end))
            room -= end - begin
            begin = end
    return rows


def cut_share(rows: Sequence[Sequence[Piece]], lengths: Sequence[int], row_tokens: int) -> float:
    """Of the documents that fit into a row, the share that was cut all the same.

    Raises:
        ValueError: no document fits into a row.
    """
    pieces = [0] * len(lengths)
    for piece in (piece for row in rows for piece in row):
        pieces[piece.document] += 1
    fitting = [count for count, length in zip(pieces, lengths, strict=True) if length <= row_tokens]
    if not fitting:
        raise ValueError(
            f"cut_share: all {len(lengths)} documents are longer than "
            f"row_tokens={row_tokens}; choose longer rows"
        )
    return sum(count > 1 for count in fitting) / len(fitting)


def padding_share(rows: Sequence[Sequence[Piece]], row_tokens: int) -> float:
    """The share of all positions that hold no token."""
    used = sum(piece.end - piece.begin for row in rows for piece in row)
    return 1 - used / (len(rows) * row_tokens)


def _check(lengths: Sequence[int], row_tokens: int) -> None:
    if not lengths or min(lengths) < 1 or row_tokens < 1:
        raise ValueError(
            f"packing: got {len(lengths)} documents, the shortest of {min(lengths, default=0)} tokens, and "
            f"row_tokens={row_tokens}; needs at least one document, none empty, and rows of 1 token or more"
        )
